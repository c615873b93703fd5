"""The manager's process: streams in, `ManagerState`, streams out."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from absl import logging
from grpc import aio

from jscale.cluster import events, gateway_messages, messages, rpc
from jscale.cluster.config import AUTO, ManagerConfig
from jscale.cluster.effects import (
    Effect,
    TellGateway,
    TellGateways,
    TellLauncher,
    TellWorker,
)
from jscale.cluster.manager_policy import ManagerPolicy
from jscale.cluster.manager_state import ManagerState
from jscale.cluster.model_spec import load_model_spec
from jscale.cluster.outgoing import Outgoing, outgoing
from jscale.cluster.ready_file import write_ready_file
from jscale.core.ids import WorkerId
from jscale.core.units import NS_PER_MS

TICK_S = 0.1
"""How often deadlines are looked at: well under the shortest of them, 0.5 s."""

Write = Callable[[Any], Awaitable[None]]


def run_manager(config: ManagerConfig) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
      CheckpointError: the model cannot be read.
      UnavailableError: the address cannot be listened on.
    """
    spec, model_path = load_model_spec(config)
    policy = ManagerPolicy(
        multicast_kind=None if config.plan_kind == AUTO else config.plan_kind,
        executes_while_loading=config.executes_while_loading,
        scaling=config.scaling,
        bounds=config.scaling_bounds,
    )
    state = ManagerState(
        spec,
        model_path=str(model_path.absolute()),  # Workers run elsewhere.
        num_workers=config.num_workers,
        policy=policy,
        epoch=time.time_ns() // NS_PER_MS,
    )
    asyncio.run(Manager(state, config).serve())


class Manager:
    """Carries out what `ManagerState` wants. Owned by its event loop."""

    def __init__(self, state: ManagerState, config: ManagerConfig) -> None:
        self._state = state
        self._config = config
        self._workers: dict[WorkerId, Outgoing] = {}
        self._addresses: dict[WorkerId, str] = {}
        self._gateways: dict[str, Outgoing] = {}
        self._launcher: Outgoing | None = None

    async def serve(self) -> None:
        """Listens and runs until the process is told to stop."""
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        server = aio.server(options=rpc.OPTIONS)
        token = self._config.cluster_token
        handlers = {
            rpc.ATTACH_WORKER.method: rpc.ATTACH_WORKER.handler(
                self._serve_worker, token
            ),
            rpc.ATTACH_GATEWAY.method: rpc.ATTACH_GATEWAY.handler(
                self._serve_gateway, token
            ),
            rpc.ATTACH_LAUNCHER.method: rpc.ATTACH_LAUNCHER.handler(
                self._serve_launcher, token
            ),
        }
        server.add_generic_rpc_handlers((rpc.service(rpc.CONTROL, handlers),))
        address = await rpc.listen(server, self._config.listen_address)
        await server.start()
        logging.info("manager listens address=%s", address)
        if self._config.ready_file:
            write_ready_file(Path(self._config.ready_file), address)
        ticker = asyncio.create_task(self._tick())
        try:
            await self._ended
        finally:
            ticker.cancel()
            await server.stop(grace=1)

    def _stop(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._step(events.Ticked())

    def _step(self, event: events.Event) -> None:
        if not isinstance(event, events.Ticked):
            logging.debug("event %s", event)
        try:
            wanted = self._state.step(event, time.monotonic_ns())
        except Exception as error:  # noqa: BLE001 - a bug of ours: end, do not limp on
            self._fail(error)
            return
        for effect in wanted:
            self._carry_out(effect)

    def _fail(self, error: Exception) -> None:
        """Ends the process: workers go on serving, and tell the next manager all."""
        if not self._ended.done():
            self._ended.set_exception(error)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case TellWorker(worker, command):
                logging.info("tell worker=%s %s", worker, type(command).__name__)
                if worker in self._workers:
                    self._workers[worker].put(command)
            case TellGateway(gateway, command):
                if gateway in self._gateways:
                    self._gateways[gateway].put(command)
            case TellGateways(command):
                for queue in self._gateways.values():
                    queue.put(command)
            case TellLauncher(command):
                if self._launcher is not None:
                    self._launcher.put(command)

    async def _serve_worker(
        self, incoming: AsyncIterator[messages.WorkerReport], write: Write
    ) -> None:
        hello = await anext(incoming, None)
        if (why := _refusal(hello, messages.WorkerHello)) is not None:
            await write(messages.Refuse(why))
            return
        assert isinstance(hello, messages.WorkerHello)
        worker = hello.worker
        if self._addresses.get(worker, hello.data_address) != hello.data_address:
            await write(
                messages.Refuse(
                    f"there is a worker {worker} already, at "
                    f"{self._addresses[worker]}: give this one another name"
                )
            )
            return
        async with outgoing(write) as queue:
            self._workers[worker] = queue
            self._addresses[worker] = hello.data_address
            logging.info("attached worker=%s blocks=%d", worker, len(hello.blocks))
            self._step(events.WorkerAttached(hello))
            try:
                async for report in incoming:
                    if self._workers.get(worker) is not queue:
                        break  # It came back before we saw that it was gone.
                    self._step(events.WorkerReported(worker, report))
            finally:
                if self._workers.get(worker) is queue:
                    del self._workers[worker]
                    del self._addresses[worker]
                    logging.info("detached worker=%s", worker)
                    self._step(events.WorkerDetached(worker))

    async def _serve_gateway(
        self, incoming: AsyncIterator[gateway_messages.GatewayReport], write: Write
    ) -> None:
        hello = await anext(incoming, None)
        if (why := _refusal(hello, gateway_messages.GatewayHello)) is not None:
            await write(messages.Refuse(why))
            return
        assert isinstance(hello, gateway_messages.GatewayHello)
        gateway = hello.gateway
        async with outgoing(write) as queue:
            self._gateways[gateway] = queue
            self._step(events.GatewayAttached(hello))
            try:
                async for report in incoming:
                    match report:
                        case gateway_messages.ScaleTo(num_workers):
                            self._step(events.ScaleRequested(num_workers))
                        case gateway_messages.LoadReported():
                            self._step(events.GatewayReported(gateway, report))
            finally:
                if self._gateways.get(gateway) is queue:
                    del self._gateways[gateway]
                    self._step(events.GatewayDetached(gateway))

    async def _serve_launcher(
        self, incoming: AsyncIterator[gateway_messages.LauncherReport], write: Write
    ) -> None:
        hello = await anext(incoming, None)
        why = _refusal(hello, gateway_messages.LauncherHello)
        if why is None and self._launcher is not None:
            why = "there is a launcher already; a cluster has one"
        if why is not None:
            await write(messages.Refuse(why))
            return
        assert isinstance(hello, gateway_messages.LauncherHello)
        async with outgoing(write) as queue:
            self._launcher = queue
            self._step(
                events.LauncherAttached(
                    hello.workers,
                    hello.num_workers_wanted,
                    hello.wanted_epoch,
                    hello.ended,
                )
            )
            try:
                async for report in incoming:
                    if isinstance(report, gateway_messages.WorkerExited):
                        self._step(
                            events.WorkerProcessEnded(report.worker, report.exit_code)
                        )
            finally:
                self._launcher = None
                self._step(events.LauncherDetached())


def _refusal(hello: object, expected: type) -> str | None:
    """Why the other side cannot be talked to; None if it can."""
    if not isinstance(hello, expected):
        return f"expected {expected.__name__} first, got {type(hello).__name__}"
    version = getattr(hello, "protocol_version", None)
    if version != messages.PROTOCOL_VERSION:
        return (
            f"it speaks protocol {version}, the manager {messages.PROTOCOL_VERSION}: "
            f"install the same jscale everywhere"
        )
    return None
