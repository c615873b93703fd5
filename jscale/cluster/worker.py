"""A worker's process: streams and threads around `WorkerState`."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from absl import logging
from grpc import aio

from jscale.cluster import messages, rpc
from jscale.cluster import worker_effects as effects
from jscale.cluster import worker_events as events
from jscale.cluster.config import WorkerConfig
from jscale.cluster.link import Link
from jscale.cluster.link_meter import LinkMeter
from jscale.cluster.loader import Loader
from jscale.cluster.local_copies import LocalCopies
from jscale.cluster.peers import Peers
from jscale.cluster.serve import GatewayStreams
from jscale.cluster.traffic import Traffic
from jscale.cluster.transfer import Transfers, is_outdated
from jscale.cluster.worker_state import WorkerState
from jscale.core.errors import JscaleError, UnavailableError
from jscale.core.ids import PipelineId, WorkerId
from jscale.core.units import NS_PER_S, mbit_to_bytes_per_s
from jscale.pipeline.messages import (
    ServeEvent,
    StageMessage,
    StageSpec,
)
from jscale.pipeline.outbox import Outbox
from jscale.store.arena import Arena
from jscale.transport.base import Hello
from jscale.transport.choice import choose_transport
from jscale.transport.numa import numa_of_worker
from jscale.transport.pacing import LinkPacer
from jscale.transport.registry import open_transport

if TYPE_CHECKING:
    from jscale.cluster.metrics import MetricsServer

DRAIN_S = 30.0
"""How long after SIGTERM sequences may take to be handed over or finished."""

MEASURE_S = 1.0
"""Over how long the use of the link is taken: longer than a burst of activations."""

FLUSH_S = 2.0
"""How long gateways may take to be told the last tokens."""


def run_worker(config: WorkerConfig) -> None:
    """Serves until told to leave.

    Raises:
      JscaleError: an address cannot be listened on, or the manager refuses us.
    """
    # Loading the blocks' executables nests deeply in LLVM; the default overflows.
    threading.stack_size(64 << 20)

    async def serve() -> None:
        await Worker(config).serve()

    asyncio.run(serve())


class Worker:
    """Carries out what `WorkerState` wants. Owned by the event loop that makes it."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._name = WorkerId(config.worker)
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[effects.Exit] = self._loop.create_future()
        self._manager = self._link()
        self._streams = GatewayStreams()
        self._copies = LocalCopies(config)
        self._loader: Loader | None = None
        rate = config.link_mbit_s and mbit_to_bytes_per_s(config.link_mbit_s)
        self._pacer = LinkPacer(rate) if rate else None
        self._choice = choice = choose_transport(
            config.data_address,
            config.transport,
            config.rdma_options,
            near_numa=numa_of_worker(os.environ.get("CUDA_VISIBLE_DEVICES")),
        )
        logging.info(
            "worker=%s transport=%s: %s", self._name, choice.scheme, choice.reason
        )
        self._transport = open_transport(
            choice.address,
            Hello(self._name, config.cluster_token.encode()),
            link=self._pacer,
            rdma=choice.options,
        )
        self._peers = Peers(
            self._transport,
            deliver=self._deliver,
            lose=lambda peer: self._post(events.PeerGone(peer)),
        )
        self._traffic = Traffic()
        self._transfers = Transfers(
            self._name, self._peers, self._post, self._traffic, self._fail
        )

    async def serve(self) -> None:
        """Listens, attaches to the manager, and runs until it is time to leave.

        Raises:
          JscaleError: an address cannot be listened on, or the manager refuses us.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop)
        metrics = self._serve_metrics()  # First: it may be refused, and ends nothing.
        listener = self._transport.listen(self._choice.address, self._peers)
        server = aio.server(options=rpc.OPTIONS)
        handler = rpc.ATTACH_HEAD.handler(
            self._streams.serve, self._config.cluster_token
        )
        handlers = {rpc.ATTACH_HEAD.method: handler}
        server.add_generic_rpc_handlers((rpc.service(rpc.SERVE, handlers),))
        serve_address = await rpc.listen(server, self._config.serve_address)
        await server.start()
        meter = LinkMeter(
            listener.address,
            rate_mbit_s=self._config.link_mbit_s or self._config.nic_mbit_s,
            pacer=self._pacer,
            ports=self._choice.ports,
        )
        in_host_memory, host_memory_bytes_per_s = self._copies.in_host_memory()
        self._state = WorkerState(
            messages.WorkerHello(
                worker=self._name,
                data_address=listener.address,
                serve_address=serve_address,
                can_load_from_disk=self._config.can_load_from_disk,
                host=self._config.host,
                leaf=self._config.leaf,
                link_bytes_per_s=meter.rate_bytes_per_s,
                in_host_memory=in_host_memory,
                host_memory_bytes_per_s=host_memory_bytes_per_s,
            )
        )
        logging.info(
            "worker=%s data=%s serve=%s", self._name, listener.address, serve_address
        )
        attached = asyncio.create_task(self._stay_attached(self._manager))
        measured = asyncio.create_task(self._measure(meter))
        try:
            end = await self._ended
            await self._streams.flushed(FLUSH_S)
            if not end.failed:
                await self._kv_given()
        finally:
            attached.cancel()
            measured.cancel()
            await server.stop(grace=0.2)
            if metrics is not None:
                await asyncio.to_thread(metrics.close)
            await asyncio.to_thread(self._close)
        logging.info("worker=%s ends: %s", self._name, end.reason)
        if end.failed:
            raise UnavailableError(end.reason)

    def _serve_metrics(self) -> "MetricsServer | None":
        """The endpoint for Prometheus, if one is wanted."""
        if self._config.metrics_port is None:
            return None
        from jscale.cluster.metrics import MetricsServer, WorkerCollector

        def find_arena() -> tuple[Arena, str] | None:
            loader = self._loader
            return (loader.store.arena, loader.data_path) if loader else None

        collector = WorkerCollector(self._name, self._traffic, find_arena)
        host = self._config.serve_address.rpartition(":")[0]
        server = MetricsServer(collector, host, self._config.metrics_port)
        logging.info("worker=%s metrics=%s", self._name, server.address)
        return server

    async def _kv_given(self) -> None:
        """Returns when nobody fetches KV that was left here any more, or in time."""
        began_ns = now_ns = time.monotonic_ns()
        while self._loader:
            wait_ns = self._loader.device.kv_linger_ns(began_ns, now_ns)
            if not wait_ns:
                return
            await asyncio.sleep(wait_ns / NS_PER_S)
            now_ns = time.monotonic_ns()

    def _close(self) -> None:
        self._transfers.close()
        self._peers.close()
        self._transport.close()
        if self._loader is not None:
            self._loader.close()

    # --- the manager -------------------------------------------------------------

    async def _stay_attached(self, manager: Link) -> None:
        try:
            await manager.run()
        except UnavailableError as error:
            self._end(effects.Exit(str(error), failed=True))

    def _link(self) -> Link:
        return Link(
            rpc.ATTACH_WORKER,
            self._config.manager_address,
            self._config.cluster_token,
            name="the manager",
            on_attached=lambda: self._step(events.ManagerAttached()),
            on_message=lambda command: self._step(events.CommandArrived(command)),
            on_lost=lambda _: self._step(events.ManagerDetached()),
        )

    def _stop(self) -> None:
        self._step(events.StopRequested())
        self._loop.call_later(DRAIN_S, self._step, events.DrainTimedOut())

    async def _measure(self, meter: LinkMeter) -> None:
        """Tells how busy our link is whenever that changes."""
        before, told = meter.read(time.monotonic_ns()), (0.0, 0.0)
        while before is not None:
            await asyncio.sleep(MEASURE_S)
            if (now := meter.read(time.monotonic_ns())) is None:
                return
            busy = now.busy_since(before, meter.rate_bytes_per_s)
            if busy != told:
                self._step(events.LinkMeasured(*busy))
            before, told = now, busy

    # --- events in, effects out ----------------------------------------------------

    def _post(self, event: events.WorkerEvent) -> None:
        """Has the event handled on the loop. Any thread may call it."""
        self._loop.call_soon_threadsafe(self._step, event)

    def _step(self, event: events.WorkerEvent) -> None:
        if self._ended.done():
            return
        if self._loader is not None and is_outdated(event, self._loader.store):
            return
        for effect in self._state.step(event):
            try:
                self._carry_out(effect)
            except JscaleError as error:
                self._end(effects.Exit(str(error), failed=True))

    def _carry_out(self, effect: effects.WorkerEffect) -> None:
        match effect:
            case effects.Report(report):
                self._manager.send(report)
            case effects.PrepareModel(spec):
                outbox = _Outbox(self._peers, self._streams, self._post)
                self._loader = Loader(
                    self._config,
                    spec,
                    self._copies,
                    outbox,
                    self._post,
                    self._fail,
                    self._transport,
                )
                self._streams.device = self._loader.device
            case effects.Exit():
                self._end(effect)
            case effects.StartMulticast(command):
                assert self._loader is not None
                self._transfers.start(command, self._loader.store)
            case effects.StopMulticast(plan):
                self._transfers.stop(plan)
            case _:
                assert self._loader is not None, effect
                self._load(self._loader, effect)

    def _load(self, loader: Loader, effect: effects.WorkerEffect) -> None:
        match effect:
            case effects.ReadFromDisk(path):
                self._transfers.stop_all()  # Also those that ended and still answer.
                slots = self._transfers.slots_for_files(loader.store)
                loader.read_from_disk(Path(path), slots)
            case effects.VerifyBlock(block):
                loader.verify(block)
            case effects.LoadExecutables(bundle):
                loader.load_executables(bundle)
            case effects.CompileExecutables():
                logging.info("worker=%s compiles: %s", self._name, effect.reason)
                loader.compile_executables()
            case effects.PlaceExecutables():
                bundle, data = loader.compiled
                self._transfers.place_executables(loader.store, data, bundle.sha256)
            case effects.OpenStages(spec):
                loader.open_stages(spec)
            case effects.CloseStages():
                loader.device.post(
                    lambda host: host.close(
                        effect.pipeline,
                        effect.reason,
                        finish=effect.finish,
                        continued_by=effect.continued_by,
                    )
                )
            case effects.BreakPipelines(peer):
                loader.device.post(lambda host: host.break_with(peer))
            case _:
                raise AssertionError(f"unknown effect {effect}")

    def _fail(self, error: BaseException) -> None:
        """A thread of ours died. Any thread may call it."""
        logging.error("worker=%s cannot go on", self._name, exc_info=error)
        reason = f"{type(error).__name__}: {error}"
        self._loop.call_soon_threadsafe(self._end, effects.Exit(reason, failed=True))

    def _end(self, effect: effects.Exit) -> None:
        if not self._ended.done():
            self._ended.set_result(effect)

    def _deliver(self, message: StageMessage, payload: memoryview) -> None:
        """Hands a peer's message to the device. Called on receive threads."""
        if self._loader is None:
            return  # No pipeline can be open yet.
        self._loader.device.post(lambda host: host.take(message, payload))


class _Outbox(Outbox):
    """What the device thread says, on its way out."""

    def __init__(
        self,
        peers: Peers,
        streams: GatewayStreams,
        post: Callable[[events.WorkerEvent], None],
    ) -> None:
        self._peers = peers
        self._streams = streams
        self._post = post

    def send(self, stage: StageSpec, message: StageMessage, payload: bytes) -> None:
        """To the peer's queue."""
        self._peers.send(stage.worker, stage.address, message, payload)

    def emit(self, gateway: str, happened: tuple[ServeEvent, ...]) -> None:
        """To the gateway's queue."""
        self._streams.emit(gateway, happened)

    def closed(self, pipeline: PipelineId, reason: str) -> None:
        """To the state machine."""
        self._post(events.StagesClosed(pipeline, reason))
