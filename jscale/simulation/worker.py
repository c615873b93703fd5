"""A simulated worker process: the real `WorkerState`, and its effects on models."""

import collections
from collections.abc import Callable
from typing import TYPE_CHECKING

from jscale.cluster import messages
from jscale.cluster import worker_effects as effects
from jscale.cluster import worker_events as events
from jscale.cluster.worker_state import WorkerState
from jscale.core.ids import PipelineId, WorkerId
from jscale.core.units import NS_PER_MS
from jscale.pipeline.messages import Cancel, ServeCommand, Submit
from jscale.simulation.caches import Copy
from jscale.simulation.chunk_store import SimulatedStore
from jscale.simulation.device import SimulatedDevice, StageWork
from jscale.simulation.machines import Device
from jscale.simulation.network import Flow, Link
from jscale.simulation.sequence_progress import SimulatedServeEvent
from jscale.simulation.transfers import SimulatedTransfers

if TYPE_CHECKING:
    from jscale.simulation.world import World

BUNDLE = messages.Bundle(sha256="0" * 64, size_bytes=1 << 20, fingerprint="simulated")
"""The executables that every simulated worker compiles or is sent."""


class SimulatedWorker:
    """Carries out what `WorkerState` wants, in no time or in the time it takes."""

    def __init__(self, world: "World", name: WorkerId, device: Device) -> None:
        self._world = world
        self.name = name
        self.device = device
        self.is_alive = True
        self.is_attached = False
        self.connections: set[WorkerId] = set()
        self.gateways: set[str] = set()
        self.blocks: set[int] = set()
        self.compute: SimulatedDevice | None = None
        self.transfers: SimulatedTransfers | None = None
        self.store: SimulatedStore | None = None
        self._flows: set[Flow] = set()
        self._events: collections.deque[events.WorkerEvent] = collections.deque()
        self._is_stepping = False
        self._ran_ns: int | None = None
        self.state = WorkerState(world.identity(name, device))

    # --- its life ----------------------------------------------------------------

    def preload(self) -> None:
        """Gives it the whole model before it attaches."""
        self.post(events.CommandArrived(messages.Welcome(self._world.spec)))
        assert self.store is not None
        self.post(events.ExecutablesLoaded("preloaded", 0.0, True, BUNDLE))
        for block in range(self._world.spec.num_blocks):
            self.store.fill(1 + block)
            self._publish(block)

    def attach(self) -> None:
        """Its stream to the manager is open, if that is there."""
        can_attach = self._world.can_attach(self.device.host)
        if self.is_alive and can_attach and not self.is_attached:
            self.is_attached = True
            self.post(events.ManagerAttached())

    def detach(self) -> None:
        """Its stream to the manager broke."""
        if self.is_attached:
            self.is_attached = False
            self.post(events.ManagerDetached())

    def post(self, event: events.WorkerEvent) -> None:
        """Has the event handled after those that are being handled."""
        self._events.append(event)
        if self._is_stepping:
            return
        self._is_stepping = True
        while self._events and self.is_alive:
            event = self._events.popleft()
            wanted = self.state.step(event)
            self._world.saw_worker(self, event, wanted)
            for effect in wanted:
                self._carry_out(effect)
        self._is_stepping = False

    def stop(self) -> None:
        """The process is gone; what it has said is on its way."""
        if self.compute is not None:
            self.compute.settle()
        self.is_alive = False
        self._events.clear()
        if self.transfers is not None:
            self.transfers.stop_all()
        for flow in list(self._flows):
            self._world.network.stop(flow)
        self._flows.clear()

    # --- effects -----------------------------------------------------------------

    def _carry_out(self, effect: effects.WorkerEffect) -> None:
        world = self._world
        match effect:
            case effects.Report(report):
                if self.is_attached:
                    manager = world.manager
                    world.streams.send(self, manager, manager.worker_said, self, report)
            case effects.PrepareModel(spec):
                self._prepare(spec)
            case effects.ReadFromDisk():
                self._read()
            case effects.StartMulticast(command):
                assert self.transfers is not None
                self.transfers.start(command)
            case effects.StopMulticast(plan):
                assert self.transfers is not None
                self.transfers.stop(plan)
            case effects.VerifyBlock(block):
                self._publish(block)
            case effects.LoadExecutables():
                load_ns = world.executables_load_ns
                world.clock.after(load_ns, self._can_run, "received", load_ns)
            case effects.CompileExecutables():
                compile_ns = world.compile_ns
                world.clock.after(compile_ns, self._can_run, "compiled", compile_ns)
            case effects.PlaceExecutables():
                assert self.transfers is not None
                self.transfers.place_executables(BUNDLE.size_bytes)
            case effects.Exit(failed=failed):
                world.worker_ended(self, exit_code=1 if failed else 0)
            case _:
                self._serve_stages(effect)

    def _serve_stages(self, effect: effects.WorkerEffect) -> None:
        assert self.compute is not None, effect
        match effect:
            case effects.OpenStages(spec):
                for peer in spec.workers:
                    if peer != self.name and not self.connect(peer):
                        self.post(events.PeerGone(peer))
                if refusal := self.compute.open(spec):
                    self.post(events.StagesRefused(spec.pipeline, refusal))
                else:
                    self.post(events.StagesOpened(spec.pipeline))
            case effects.CloseStages(pipeline, reason, finish, continued_by):
                self.compute.close(
                    pipeline, reason, finish=finish, continued_by=continued_by
                )
            case effects.BreakPipelines(peer):
                self.compute.break_with(peer)
            case _:
                raise AssertionError(f"unknown effect {effect}")

    def _prepare(self, spec: messages.ModelSpec) -> None:
        world = self._world
        self.store = SimulatedStore(world.chunks)
        self.compute = SimulatedDevice(
            self.name, world.model, spec.engine, self, world.clock
        )
        self.transfers = SimulatedTransfers(
            self.name,
            self.store,
            self,
            world.plans,
            self.post,
            world.clock,
            setup_ns=world.system.setup_ns,
        )

    def _read(self) -> None:
        """Loads what is missing from the best copy, and sends it on if others wait."""
        assert self.transfers is not None
        self.transfers.stop_all()
        world = self._world
        copy = world.caches.best_copy(self.device, world.clock.now_ns)
        world.recorder.note(self.name, tier=copy.tier)
        self._read_next(copy, 0)

    def _read_next(self, copy: Copy, chunk: int) -> None:
        """Reads a chunk, or a block where nothing is sent on; then what follows."""
        store, chunks = self.store, self._world.chunks
        assert store is not None
        while chunk < chunks.num_chunks and store.holds(store.num_leading + chunk):
            chunk += 1
        if chunk == chunks.num_chunks or not self.is_alive:
            return
        read = range(chunk, chunk + 1)
        if self._world.system.policy.loads_locally:
            read = range(chunk, chunks.chunks_of(chunks.chunk(chunk).region).stop)

        def loaded() -> None:
            assert self.transfers is not None
            for each in read:
                if (region := self.transfers.read(each)) is not None:
                    self._publish(region - 1)
            self._read_next(copy, read.stop)

        size_bytes = sum(chunks.chunk(each).size_bytes for each in read)
        if self._world.system.is_instant:
            loaded()
        else:
            self.start_flow(copy.links, size_bytes, loaded)

    def _publish(self, block: int) -> None:
        self.blocks.add(block)
        self._world.block_ready(self, block)
        self.post(events.BlockPublished(block))

    def _can_run(self, origin: str, took_ns: int) -> None:
        if not self.is_alive:
            return
        took_ms = took_ns / NS_PER_MS
        self.post(events.ExecutablesLoaded(origin, took_ms, False, None))
        self.post(events.ExecutablesLoaded(origin, took_ms, True, BUNDLE))

    # --- the data plane ----------------------------------------------------------

    def connect(self, peer: WorkerId) -> bool:
        """Whether the peer is there; each hears of the other's end from now on."""
        other = self._world.find(peer)
        if other is None or not self._world.can_reach(self.device, other.device):
            return False
        self.connections.add(peer)
        other.connections.add(self.name)
        return True

    def peer_gone(self, peer: WorkerId) -> None:
        """The connection to a peer broke."""
        self.connections.discard(peer)
        if self.transfers is not None:
            self.transfers.peer_lost(peer)
        self.post(events.PeerGone(peer))

    def start_flow(
        self,
        links: tuple[Link, ...],
        size_bytes: float,
        done: Callable[[], None],
    ) -> Flow:
        """Sends bytes; ends with us."""

        def ended() -> None:
            self._flows.discard(flow)
            done()

        flow = self._world.network.start(links, size_bytes, ended)
        self._flows.add(flow)
        return flow

    def stop_flow(self, flow: Flow) -> None:
        """Takes bytes back that are on their way."""
        self._flows.discard(flow)
        self._world.network.stop(flow)

    def to_transfers(
        self, peer: WorkerId, act: Callable[[SimulatedTransfers], None]
    ) -> None:
        """Has something done at the peer, when a message has reached it."""
        other = self._world.find(peer)
        if other is not None:
            self._world.streams.send(self, other, other.do_transfers, act)

    def do_transfers(self, act: Callable[[SimulatedTransfers], None]) -> None:
        """What a peer's message does here."""
        if self.transfers is not None:
            act(self.transfers)

    def send_chunk(
        self,
        peer: WorkerId,
        size_bytes: int,
        written: Callable[[], None],
        landed: Callable[[SimulatedTransfers], None],
    ) -> Flow | None:
        """Sends bytes; `written` here when they are out, `landed` there."""
        other = self._world.find(peer)
        if other is None:  # We shall hear of it.
            self._world.clock.after(0, written)
            return None

        def done() -> None:
            self.to_transfers(peer, landed)
            written()

        path = self._world.machines.path(self.device, other.device)
        return self.start_flow(path, size_bytes, done)

    # --- serving -----------------------------------------------------------------

    def serve(self, gateway: str, commands: tuple[ServeCommand, ...]) -> None:
        """What a gateway wants, together."""
        if self.compute is None:
            return
        submitted = [each for each in commands if isinstance(each, Submit)]
        for command in commands:
            if isinstance(command, Cancel):
                self.compute.cancel(command.sequence)
        self.compute.submit(gateway, submitted)

    def gateway_gone(self, gateway: str) -> None:
        """A gateway's stream broke."""
        self.gateways.discard(gateway)
        if self.compute is not None:
            self.compute.forget_gateway(gateway)

    def pass_on(self, work: StageWork) -> None:
        """Activations to the worker of the next stage."""
        other = self._world.find(work.stage.worker)
        if other is None:
            return
        size_bytes = work.batch.num_rows * self._world.model.activation_bytes_per_token

        def arrived() -> None:
            self._world.streams.send(self, other, other.take_input, work)

        path = self._world.machines.path(self.device, other.device)
        self.start_flow(path, size_bytes, arrived)

    def take_input(self, work: StageWork) -> None:
        """Activations have come."""
        if self.compute is not None:
            self.compute.take_input(work)

    def answer(self, work: StageWork) -> None:
        """To the head: the last stage is done."""
        head = self._world.find(work.spec.head)
        if head is not None:
            self._world.streams.send(self, head, head.take_sampled, work)

    def take_sampled(self, work: StageWork) -> None:
        """The last stage is done."""
        if self.compute is not None:
            self.compute.take_sampled(work)

    def tell(self, gateway: str, events: list[SimulatedServeEvent]) -> None:
        """To a gateway."""
        other = self._world.find_gateway(gateway)
        if other is not None:
            self._world.streams.send(self, other, other.head_said, self.name, events)

    def closed(self, pipeline: PipelineId, reason: str) -> None:
        """To the state machine."""
        self.post(events.StagesClosed(pipeline, reason))

    def ran(self, prefill_tokens: int, passed_ns: int) -> None:
        """Counts."""
        now_ns = self._world.clock.now_ns
        recorder = self._world.recorder
        if self._ran_ns is None:
            self._ran_ns = now_ns - passed_ns
            recorder.note(self.name, serving_ns=self._ran_ns)
        if prefill_tokens:
            recorder.prefilled(prefill_tokens, now_ns - passed_ns, now_ns)
