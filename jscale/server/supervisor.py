"""Keeps servers of a local cluster running, each at the address that it had."""

import dataclasses
import pathlib
import threading
import time

from absl import logging

from jscale.cluster.config import ManagerConfig
from jscale.core.units import NS_PER_S
from jscale.server.child_process import ChildProcess, flags_of
from jscale.server.gateway_config import GatewayConfig
from jscale.server.restarts import Restarts

POLL_S = 0.02
"""How late a death is noticed."""


@dataclasses.dataclass
class _Part:
    """One of the servers; guarded by the supervisor's lock."""

    config: ManagerConfig | GatewayConfig
    process: ChildProcess
    started_ns: int
    restarts: Restarts = dataclasses.field(default_factory=Restarts)
    restart_ns: int | None = None
    is_given_up: bool = False


class Supervisor:
    """Starts servers, and starts those again that die, from `watch` to `stop`.

    A lock guards the parts; any thread may call.
    """

    def __init__(self, *, token_file: pathlib.Path, log_dir: pathlib.Path) -> None:
        self._token_file = token_file
        self._log_dir = log_dir
        self._lock = threading.Lock()
        self._parts: dict[str, _Part] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor")
        self._thread.daemon = True  # Or Python would wait for it at exit.

    def start(
        self, name: str, config: ManagerConfig | GatewayConfig, timeout_s: float
    ) -> str:
        """The address of a new server, `jscale.launch.<name>`, which is ready.

        Raises:
          UnavailableError: it ended, or takes too long.
        """
        ready_file = self._log_dir / f"{name}.ready"
        config = dataclasses.replace(config, ready_file=str(ready_file))
        process = self._spawn(name, config)
        with self._lock:
            part = _Part(config, process, time.monotonic_ns())
            self._parts[name] = part
        address = process.read_when_ready(ready_file, timeout_s)
        with self._lock:
            part.config = dataclasses.replace(config, listen_address=address)
        return address

    def watch(self) -> None:
        """From now on, what dies is started again."""
        self._thread.start()

    def stop(self) -> None:
        """Nothing is started any more; what runs runs on."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def processes(self) -> dict[str, ChildProcess]:
        """The servers by name, as they were last started."""
        with self._lock:
            return {name: part.process for name, part in self._parts.items()}

    def check(self) -> None:
        """Returns if all run, or will again.

        Raises:
          UnavailableError: one ended that is not started again.
        """
        is_watching = self._thread.is_alive()
        with self._lock:
            for part in self._parts.values():
                is_dead = part.process.exit_code is not None and not is_watching
                if is_dead or part.is_given_up:
                    raise part.process.failure()

    def _run(self) -> None:
        while not self._stopping.wait(POLL_S):
            with self._lock:
                for name, part in self._parts.items():
                    if not part.is_given_up:
                        self._keep(name, part, time.monotonic_ns())

    def _keep(self, name: str, part: _Part, now_ns: int) -> None:
        if part.restart_ns is not None:
            if now_ns >= part.restart_ns:
                part.restart_ns = None
                part.started_ns = now_ns
                part.process = self._spawn(name, part.config)
                logging.warning("started %s again pid=%d", name, part.process.pid)
        elif part.process.exit_code is not None:
            part.process.reap()
            pause_ns = part.restarts.pause_ns(now_ns - part.started_ns)
            told = str(part.process.failure())
            if pause_ns is None:
                part.is_given_up = True
                logging.error("%s; it did so too often: not started again", told)
            else:
                part.restart_ns = now_ns + pause_ns
                pause_s = pause_ns / NS_PER_S
                logging.warning("%s; starting it again in %.1f s", told, pause_s)

    def _spawn(self, name: str, config: ManagerConfig | GatewayConfig) -> ChildProcess:
        if config.ready_file is not None:
            pathlib.Path(config.ready_file).unlink(missing_ok=True)
        flags = flags_of(config, self._token_file)
        log = self._log_dir / f"{name}.log"
        return ChildProcess(name, f"jscale.launch.{name}", flags, log)
