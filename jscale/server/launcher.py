"""Starts worker processes on this machine when the manager wants them."""

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import threading

from absl import logging

from jscale.cluster import gateway_messages, messages, rpc
from jscale.cluster.config import WorkerConfig
from jscale.cluster.link import Link
from jscale.core.errors import UnavailableError
from jscale.core.ids import WorkerId
from jscale.server.child_process import ChildProcess, flags_of
from jscale.server.gpus import choose_gpu, environment_for, gpus_here

POLL_S = 0.05
"""How late the manager hears of a worker process that ended."""


class Launcher:
    """A thread that is the manager's launcher, and the workers that it started.

    `template` is the config of every worker but for its name; where there are GPUs,
    each worker sees one. The thread owns the processes' start and their entry in
    `processes`; others read and signal them.
    """

    def __init__(
        self, template: WorkerConfig, *, token_file: pathlib.Path, log_dir: pathlib.Path
    ) -> None:
        self._template = template
        self._token_file = token_file
        self._log_dir = log_dir
        self._gpus = gpus_here(os.environ)
        self._gpu_of: dict[WorkerId, str | None] = {}
        self._lock = threading.Lock()
        self._processes: dict[WorkerId, ChildProcess] = {}
        self._ended: dict[WorkerId, ChildProcess] = {}
        self._refused = ""
        self._wanted: int | None = None
        self._wanted_epoch = 0
        self._loop = asyncio.new_event_loop()
        self._link = Link(
            rpc.ATTACH_LAUNCHER,
            template.manager_address,
            template.cluster_token,
            name="the manager",
            on_attached=self._attached,
            on_message=self._manager_said,
            on_lost=lambda _: None,
        )
        self._task: asyncio.Task[None] | None = None
        # A daemon, or Python would wait for it before the cluster is closed at exit.
        self._thread = threading.Thread(target=self._run, name="launcher", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Starts no more workers and reports none; they run on."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._cancel)
        if self._thread.ident is not None:
            self._thread.join()

    def processes(self) -> dict[WorkerId, ChildProcess]:
        """The workers that run, by name."""
        with self._lock:
            return dict(self._processes)

    def check(self) -> None:
        """Returns if all went well.

        Raises:
          UnavailableError: a worker process failed, or the manager has a launcher.
        """
        if self._refused:
            raise UnavailableError(f"the manager refuses: {self._refused}")
        with self._lock:
            failed = [process for process in self._ended.values() if process.exit_code]
        if failed:
            raise failed[0].failure()

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self) -> None:
        self._task = asyncio.current_task()
        watching = asyncio.create_task(self._watch())
        try:
            await self._link.run()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _attached(self) -> None:
        """Tells a manager, which may have been away, what runs and what has ended."""
        with self._lock:
            running = tuple(self._processes)
            ended = dict(self._ended)
        self._link.send(
            gateway_messages.LauncherHello(
                "local", running, self._wanted, self._wanted_epoch, tuple(ended)
            )
        )
        for worker, process in ended.items():
            self._link.send(
                gateway_messages.WorkerExited(worker, process.exit_code or 0)
            )

    def _manager_said(self, command: gateway_messages.LauncherCommand) -> None:
        match command:
            case messages.Refuse(reason):
                self._refused = reason
                self._cancel()
            case gateway_messages.LaunchWorker(worker):
                self._launch(worker)
            case gateway_messages.RememberWanted(num_workers, epoch):
                self._wanted, self._wanted_epoch = num_workers, epoch

    def _launch(self, worker: WorkerId) -> None:
        with self._lock:
            if worker in self._processes or worker in self._ended:
                return
            config = dataclasses.replace(self._template, worker=worker)
            flags = flags_of(config, self._token_file)
            log = self._log_dir / f"{worker}.log"
            taken = [self._gpu_of[each] or "" for each in self._processes]
            gpu = self._gpu_of[worker] = choose_gpu(self._gpus, taken)
            environment = environment_for(gpu, os.environ)
            process = ChildProcess(
                worker, "jscale.launch.worker", flags, log, environment
            )
            self._processes[worker] = process
        logging.info("launched worker=%s pid=%d gpu=%s", worker, process.pid, gpu)

    async def _watch(self) -> None:
        while True:
            for worker, process in self.processes().items():
                if process.exit_code is None:
                    continue
                process.reap()
                with self._lock:
                    self._ended[worker] = self._processes.pop(worker)
                code = process.exit_code
                logging.info("worker ended worker=%s exit_code=%d", worker, code)
                self._link.send(gateway_messages.WorkerExited(worker, code))
            await asyncio.sleep(POLL_S)
