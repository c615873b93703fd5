"""A whole cluster on this machine: manager, gateway and workers as processes."""

import atexit
import os
import pathlib
import secrets
import shutil
import tempfile
import time
import types
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from jscale.checkpoint.cache import resolve
from jscale.cluster.config import ManagerConfig, WorkerConfig
from jscale.core.errors import ConfigError, JscaleError, UnavailableError
from jscale.core.ids import WorkerId
from jscale.proto.v1 import jscale_pb2 as pb
from jscale.server.child_process import ChildProcess
from jscale.server.client import Client
from jscale.server.gateway_config import GatewayConfig
from jscale.server.generation import Generation
from jscale.server.launcher import Launcher
from jscale.server.local_cluster_config import LocalClusterConfig
from jscale.server.scale_out import ScaleOut
from jscale.server.supervisor import Supervisor

SERVING_POLL_S = 0.5


class LocalCluster:
    """Serves a model from the moment it is made until `close`.

    Every process it starts ends with it, also when this process is killed. Owned by
    the thread that makes it; `generate`, `scale_to` and `status` are for any thread.

        with LocalCluster("path/to/model", num_workers=1) as cluster:
            for token in cluster.generate("Once upon a time", max_tokens=64):
                print(token.text, end="", flush=True)
            cluster.scale_to(4).wait()
    """

    def __init__(
        self, model: str | LocalClusterConfig, num_workers: int = 1, **settings: Any
    ) -> None:
        """Returns when the model is served.

        Args:
          model: a directory: a block store, or a checkpoint that is converted; or a
            whole config, and nothing else.
          num_workers: worker processes at the start.
          **settings: further fields of `LocalClusterConfig`.

        Raises:
          CheckpointError: the model cannot be read.
          ConfigError: a setting cannot be used.
          UnavailableError: a process ended, or took too long; its log says why.
        """
        if isinstance(model, LocalClusterConfig):
            self.config = model
        else:
            self.config = LocalClusterConfig(model, num_workers, **settings)
        store = str(resolve(self.config.model, self.config.cache_dir))
        self._runtime_dir, self._is_temporary = _runtime_dir(self.config.runtime_dir)
        self._token_file, self._token = _write_token(self._runtime_dir)
        self._supervisor = Supervisor(
            token_file=self._token_file, log_dir=self._runtime_dir
        )
        self._launcher: Launcher | None = None
        self._client: Client | None = None
        atexit.register(self.close)
        try:
            self._start(store)
        except BaseException as error:
            if isinstance(error, JscaleError):
                self._is_temporary = False  # It may name a log in there.
            self.close()
            raise

    def __enter__(self) -> "LocalCluster":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()

    @property
    def client(self) -> Client:
        """A client of the gateway, to be used while the cluster runs."""
        if self._client is None:
            raise UnavailableError("the cluster is closed: make a new one")
        return self._client

    @property
    def address(self) -> str:
        """HOST:PORT of the gateway."""
        return self.client.address

    @property
    def runtime_dir(self) -> pathlib.Path:
        """Where the logs are."""
        return self._runtime_dir

    @property
    def workers(self) -> Mapping[WorkerId, ChildProcess]:
        """The worker processes that run now: their `pid`, `terminate()`, `kill()`."""
        return {} if self._launcher is None else self._launcher.processes()

    @property
    def servers(self) -> Mapping[str, ChildProcess]:
        """The processes of `manager` and `gateway` that run now.

        One that dies is started again, at the same address.
        """
        return self._supervisor.processes()

    def generate(self, prompt: str | Sequence[int], **sampling: Any) -> Generation:
        """The tokens that follow the prompt, as they are made: `Client.generate`."""
        return self.client.generate(prompt, **sampling)

    def status(self) -> pb.ModelStatusResponse:
        """Holdings, pipelines and speed now."""
        return self.client.status()

    def scale_to(self, num_workers: int) -> ScaleOut:
        """Asks for so many workers and returns at once; the cluster serves meanwhile.

        Raises:
          RequestError: no cluster has so many.
          UnavailableError: the manager or gateway is gone.
        """
        self.client.scale_to(num_workers)
        return ScaleOut(self.client, num_workers)

    def wait(self) -> NoReturn:
        """Waits for ever, or until manager or gateway ends again and again.

        Raises:
          UnavailableError: one of them did; with what it said last.
        """
        while True:
            self._supervisor.check()
            time.sleep(SERVING_POLL_S)

    def close(self) -> None:
        """Lets running requests finish within `drain_timeout_s` and ends everything.

        Interrupted, by a second Ctrl-C say, it lets them finish no longer.
        """
        atexit.unregister(self.close)
        try:
            self._drain()
        finally:
            self._end()

    def _drain(self) -> None:
        self._supervisor.stop()
        if self._client is not None:
            self._client.close()
            self._client = None
        gateway = self._supervisor.processes().get("gateway")
        if gateway is not None:
            gateway.terminate()
            gateway.reap(self.config.drain_timeout_s + 2)

    def _end(self) -> None:
        self._supervisor.stop()
        servers = self._supervisor.processes()
        if "gateway" in servers:
            servers["gateway"].kill()  # It has drained, or is to do so no longer.
        rest = list(servers.values())
        if self._launcher is not None:
            self._launcher.stop()
            rest += self._launcher.processes().values()
            self._launcher = None
        for process in rest:
            process.terminate()
        for process in rest:
            process.reap()
        if self._is_temporary:
            shutil.rmtree(self._runtime_dir, ignore_errors=True)

    def _start(self, store: str) -> None:
        config = self.config
        manager_address = self._start_manager(store)
        template = WorkerConfig(
            worker="template",
            manager_address=manager_address,
            cluster_token=self._token,
            link_mbit_s=config.link_mbit_s,
            device_memory=config.device_memory,
            host_tier_dir=config.host_tier_dir,
            host_tier_mib=config.host_tier_mib,
            emulate_layer_us=config.emulate_layer_us,
            transport=config.transport,
            rdma_devices=config.rdma_devices,
            rdma_gid_index=config.rdma_gid_index,
            rdma_retry_s=config.rdma_retry_s,
            rdma_pull=config.rdma_pull,
            cache_dir=config.cache_dir,
            ships_executables=config.ships_executables,
        )
        self._launcher = Launcher(
            template, token_file=self._token_file, log_dir=self._runtime_dir
        )
        self._launcher.start()
        self._client = Client(self._start_gateway(store, manager_address))
        self._wait_until_serving(self._client, self._launcher)
        self._supervisor.watch()

    def _start_manager(self, store: str) -> str:
        config = self.config
        manager = ManagerConfig(
            model_path=store,
            cluster_token=self._token,
            num_workers=config.num_workers,
            cache_dir=config.cache_dir,
            plan_kind=config.plan_kind,
            executes_while_loading=config.executes_while_loading,
            autoscale=config.autoscale,
            min_workers=config.min_workers,
            max_workers=config.max_workers,
            max_sequences=config.max_sequences,
            step_rows=config.step_rows,
            kv_mib=config.kv_mib,
            max_context=config.max_context,
            compute_dtype=config.compute_dtype,
            moves_kv=config.moves_kv,
        )
        return self._supervisor.start("manager", manager, config.start_timeout_s)

    def _start_gateway(self, store: str, manager_address: str) -> str:
        config = self.config
        gateway = GatewayConfig(
            model_path=store,
            manager_address=manager_address,
            cluster_token=self._token,
            listen_address=config.address,
            cache_dir=config.cache_dir,
            max_context=config.max_context,
            drain_timeout_s=config.drain_timeout_s,
        )
        return self._supervisor.start("gateway", gateway, config.start_timeout_s)

    def _wait_until_serving(self, client: Client, launcher: Launcher) -> None:
        """Asks for health again and again, to see a worker that fails meanwhile."""
        deadline = time.monotonic() + self.config.start_timeout_s
        while True:
            try:
                return client.wait_until_serving(SERVING_POLL_S)
            except UnavailableError:
                launcher.check()
                self._supervisor.check()
                _check_note(client.status())
                if time.monotonic() > deadline:
                    raise


def _check_note(status: pb.ModelStatusResponse) -> None:
    """Returns if there is reason to wait on.

    Servers that are started by hand try again, since somebody may mend what is broken;
    here somebody waits for an answer.

    Raises:
      UnavailableError: a worker is there and cannot read the model, say.
    """
    if status.workers and status.note:
        raise UnavailableError(status.note)


def _runtime_dir(wanted: str | None) -> tuple[pathlib.Path, bool]:
    """A folder that only this user can enter, and whether it is temporary."""
    if wanted is None:
        return pathlib.Path(tempfile.mkdtemp(prefix="jscale-")), True
    path = pathlib.Path(wanted)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"runtime_dir {wanted}: {error.strerror}") from error
    return path, False


def _write_token(directory: pathlib.Path) -> tuple[pathlib.Path, str]:
    """A fresh secret, and the file of it that only this user can read."""
    token, path = secrets.token_hex(16), directory / "cluster_token"
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token)
    return path, token
