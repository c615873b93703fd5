"""A simulated cluster: processes, machines, and what happens to them."""

import math
from collections.abc import Callable, Sequence

from jscale.cluster import events, messages, worker_effects, worker_events
from jscale.cluster.effects import Effect
from jscale.core.chunks import ChunkTable
from jscale.core.ids import ModelName, WorkerId
from jscale.core.units import NS_PER_MS
from jscale.engine.config import TILE_ROWS, EngineConfig
from jscale.plan import placement
from jscale.plan.placement import HostCopies, choose_starts
from jscale.simulation.caches import HostCaches
from jscale.simulation.clock import VirtualClock
from jscale.simulation.draws import Draws
from jscale.simulation.gateway import SimulatedGateway
from jscale.simulation.launcher import SimulatedLauncher
from jscale.simulation.machines import Device, Machines
from jscale.simulation.manager import SimulatedManager
from jscale.simulation.network import Network
from jscale.simulation.recorder import Recorder
from jscale.simulation.results import BlockArrival, TraceRequest
from jscale.simulation.settings import (
    ClusterSpec,
    ModelCosts,
    System,
)
from jscale.simulation.streams import Streams
from jscale.simulation.transfers import Plans
from jscale.simulation.worker import SimulatedWorker

PAGE_TOKENS = 16

_FREE = placement.Device()

RECONNECT_NS_MAX = 300 * NS_PER_MS
"""How long after a manager's restart a process finds it, at most."""


class World:
    """Owns all processes; they reach each other through it."""

    def __init__(
        self,
        cluster: ClusterSpec,
        model: ModelCosts,
        system: System,
        trace: Sequence[TraceRequest],
        *,
        num_workers: int,
        seed: int = 0,
        transcript: Callable[[str], None] | None = None,
    ) -> None:
        self.model = model
        self.system = system
        self.trace = list(trace)
        self.clock = VirtualClock()
        self.draws = Draws(seed)
        self.network = Network(self.clock)
        self.machines = Machines(cluster, self.network)
        self.streams = Streams(
            self.clock,
            cluster.message_latency_ns,
            cluster.message_jitter_ns,
            self.draws,
        )
        self.recorder = Recorder(self.trace, model.num_accelerators)
        barrier_ns = system.barrier_ns if system.has_barrier else None
        self.plans = Plans(self.clock, barrier_ns)
        self.caches = HostCaches(system, self.machines)
        self.spec = model_spec(cluster, model, system, self.trace)
        self.chunks = ChunkTable(
            (0, *self.spec.block_sizes_bytes), self.spec.chunk_size_bytes
        )
        is_instant = system.is_instant
        self.process_start_ns = 0 if is_instant else cluster.process_start_ns
        self.executables_load_ns = 0 if is_instant else cluster.executables_load_ns
        self.compile_ns = 0 if is_instant else cluster.compile_ns
        self.workers: dict[WorkerId, SimulatedWorker] = {}
        self._prompts: dict[int, tuple[int, ...]] = {}
        self._transcript = transcript
        self._num_gateways = 0
        self._num_workers = num_workers
        self._unsent: dict[int, int] = {}
        self.manager = SimulatedManager(self, num_workers, epoch=1)
        self.launcher = SimulatedLauncher(self)
        self.gateway = self._new_gateway((None, 0))
        for number, device in enumerate(self.choose_devices(num_workers)):
            self._start_preloaded(WorkerId(f"w{number}"), device)
        self.launcher.attach()

    # --- looking -----------------------------------------------------------------

    def find(self, worker: WorkerId) -> SimulatedWorker | None:
        """The worker, if it lives."""
        return self.workers.get(worker)

    def find_gateway(self, name: str) -> SimulatedGateway | None:
        """The gateway, if it lives."""
        return self.gateway if self.gateway.name == name else None

    def can_attach(self, host: int) -> bool:
        """Whether a worker of the host reaches the manager."""
        return self.manager.is_alive and not self.machines.is_cut(host)

    def can_reach(self, source: Device, target: Device) -> bool:
        """Whether a device reaches another."""
        is_cut = self.machines.is_cut
        same = source.host == target.host
        return same or not (is_cut(source.host) or is_cut(target.host))

    def prompt(self, num_tokens: int) -> tuple[int, ...]:
        """A prompt of so many tokens; those of the same length are the same."""
        prompt = self._prompts.get(num_tokens)
        if prompt is None:
            prompt = self._prompts[num_tokens] = (0,) * num_tokens
        return prompt

    @property
    def is_at_rest(self) -> bool:
        """As many workers as are wanted, all with the whole model. O(workers)."""
        wanted = self.recorder.wanted
        return (
            not self.launcher.num_starting
            and (not wanted or wanted[-1][1] == len(self.workers))
            and all(
                len(worker.blocks) == self.spec.num_blocks
                for worker in self.workers.values()
            )
        )

    def identity(self, name: WorkerId, device: Device) -> messages.WorkerHello:
        """What a worker says of itself. Of links only where they are not all alike."""
        spec = self.machines.spec
        leaf = device.host // spec.hosts_per_leaf if spec.hosts_per_leaf else 0
        is_uniform = spec.devices_per_host == 1 and spec.hosts_per_leaf is None
        return messages.WorkerHello(
            worker=name,
            data_address=f"sim://{name}",
            serve_address=f"{name}:1",
            host=f"h{device.host}",
            leaf=f"l{leaf}",
            link_bytes_per_s=0 if is_uniform else self.machines.nic_bytes_per_s,
        )

    def choose_devices(self, num_workers: int) -> list[Device]:
        """Where the next workers go; fewer, if there is no room. O(devices)."""
        now_ns, model = self.clock.now_ns, ModelName(self.model.name)
        hosts = [
            HostCopies(
                host=str(number),
                devices=tuple(_FREE if who is None else taken for who in workers),
                in_memory=(model,) if self.caches.holds(number, now_ns) else (),
            )
            for taken in (placement.Device(model, is_serving=True),)
            for number, workers in enumerate(self.machines.workers_on)
        ]
        starts = choose_starts(hosts, model, num_workers)
        return [Device(int(start.host), start.device) for start in starts]

    # --- what processes tell the world -------------------------------------------

    def block_ready(self, worker: SimulatedWorker, block: int) -> None:
        """A worker can compute with a block."""
        now_ns = self.clock.now_ns
        self.recorder.blocks.append(BlockArrival(now_ns, worker.name, block))
        if len(worker.blocks) == self.spec.num_blocks:
            self.recorder.note(worker.name, complete_ns=now_ns)
            self.caches.used(worker.device.host)

    def wanted_changed(self, num_workers: int) -> None:
        """The manager wants another number of workers."""
        wanted = self.recorder.wanted
        if not wanted or wanted[-1][1] != num_workers:
            wanted.append((self.clock.now_ns, num_workers))

    def request_ended(self, number: int, given: int, error: str) -> None:
        """A request is complete, or failed."""
        assert error or given == self.trace[number].output_tokens, (number, given)
        self.recorder.ended(number, self.clock.now_ns, error)

    def saw_worker(
        self,
        worker: SimulatedWorker,
        event: worker_events.WorkerEvent,
        wanted: list[worker_effects.WorkerEffect],
    ) -> None:
        """A worker's state machine made a step."""
        if self._transcript is not None:
            self._say(f"{worker.name} {_short(event)}", wanted)

    def saw_manager(self, event: events.Event, wanted: list[Effect]) -> None:
        """The manager's state machine made a step."""
        if self._transcript is not None and (
            wanted or not isinstance(event, events.Ticked)
        ):
            self._say(f"manager {_short(event)}", wanted)

    def _say(self, what: str, wanted: Sequence[object]) -> None:
        assert self._transcript is not None
        self._transcript(f"{self.clock.now_ns} {what}")
        for effect in wanted:
            self._transcript(f"  {_short(effect)}")

    # --- starts and ends --------------------------------------------------------

    def submit(self, number: int, given: int = 0) -> None:
        """A request of the trace arrives, or comes again after a gateway was lost."""
        if self.gateway.is_alive:
            self.gateway.submit(number, given)
        else:
            self._unsent[number] = given

    def worker_ended(self, worker: SimulatedWorker, exit_code: int) -> None:
        """A worker's process ends, by itself or not."""
        if not worker.is_alive:
            return
        worker.stop()
        del self.workers[worker.name]
        now_ns = self.clock.now_ns
        if len(worker.blocks) == self.spec.num_blocks:
            self.caches.unused(worker.device.host, now_ns)
        self.machines.free(worker.name)
        self.recorder.stopped(worker.name, now_ns)
        for name in sorted(worker.connections):
            peer = self.find(name)
            if peer is not None:
                self.streams.send(worker, peer, peer.peer_gone, worker.name)
        manager, gateway = self.manager, self.gateway
        self.streams.send(worker, manager, manager.worker_gone, worker)
        self.streams.send(worker, gateway, gateway.head_gone, worker)
        if self.launcher.is_alive:
            self.launcher.ended(worker.name, exit_code)

    def kill_manager(self, restart_ns: int) -> None:
        """The manager dies, and is started anew after a while, knowing nothing."""
        if self.manager.is_alive:
            self.manager.stop()
            self.streams.send(self.manager, self.gateway, self.gateway.detach)
            self.clock.after(restart_ns, self._start_manager)

    def kill_launcher(self, restart_ns: int) -> None:
        """The launcher dies; what it has started runs on."""
        if self.launcher.is_alive:
            self.launcher.stop()
            manager = self.manager
            self.streams.send(self.launcher, manager, manager.launcher_gone)
            self.clock.after(restart_ns, self._start_launcher)

    def kill_gateway(self, restart_ns: int) -> None:
        """The gateway dies; clients ask the next for what they lack."""
        if self.gateway.is_alive:
            self.gateway.stop()
            self._unsent.update(self.gateway.numbers)
            self.clock.after(restart_ns, self._start_gateway)

    def break_connections(self, host: int) -> None:
        """All connections of a host's workers to the outside break."""
        for worker in [w for w in self.workers.values() if w.device.host == host]:
            for other in (self.manager, self.gateway):
                self.streams.break_between(worker, other)
            self.manager.worker_gone(worker)
            worker.detach()
            self.gateway.head_gone(worker)
            worker.gateway_gone(self.gateway.name)
            for name in sorted(worker.connections):
                peer = self.find(name)
                if peer is not None and peer.device.host != host:
                    self.streams.break_between(worker, peer)
                    peer.peer_gone(worker.name)
                    worker.peer_gone(name)

    def heal(self) -> None:
        """All links have their rates again; who lost another finds it."""
        for host in self.machines.slow_hosts:
            self.machines.slow_down(host, 1.0)
        for worker in list(self.workers.values()):
            worker.attach()
            self.gateway.follow(worker.name)

    def _start_preloaded(self, name: WorkerId, device: Device) -> None:
        worker = SimulatedWorker(self, name, device)
        self.machines.take(name, device)
        self.recorder.started(name, device.host, 0)
        self.workers[name] = worker
        worker.preload()
        worker.attach()

    def _start_manager(self) -> None:
        epoch = self.manager.epoch + 1
        self.manager = SimulatedManager(self, self._num_workers, epoch)
        for worker in self.workers.values():
            self.clock.after(self._pause_ns(), worker.attach)
        self.clock.after(self._pause_ns(), self.gateway.attach)
        self.clock.after(self._pause_ns(), self.launcher.attach)

    def _start_launcher(self) -> None:
        self.launcher = SimulatedLauncher(self)
        self.launcher.attach()

    def _start_gateway(self) -> None:
        self.gateway = self._new_gateway((None, 0))
        unsent, self._unsent = self._unsent, {}
        for number, given in sorted(unsent.items()):
            if given:
                self.recorder.handed_over(number)
            self.gateway.submit(number, given)

    def _pause_ns(self) -> int:
        """How long a process waits before it looks for the manager again."""
        return self.draws.below(RECONNECT_NS_MAX)

    def _new_gateway(self, wanted: tuple[int | None, int]) -> SimulatedGateway:
        self._num_gateways += 1
        gateway = SimulatedGateway(self, f"g{self._num_gateways}", wanted)
        gateway.attach()
        return gateway


def model_spec(
    cluster: ClusterSpec,
    model: ModelCosts,
    system: System,
    trace: Sequence[TraceRequest],
) -> messages.ModelSpec:
    """The model as manager and workers are told of it.

    Half of a worker's pages are its local replica's, which is to hold `max_tokens`.
    """
    longest = max((r.prompt_tokens + r.output_tokens for r in trace), default=1)
    pages = math.ceil(max(model.max_tokens, longest) / PAGE_TOKENS)
    rows = max(model.step_tokens_max, model.max_sequences)
    engine = EngineConfig(
        row_buckets=(math.ceil(rows / TILE_ROWS) * TILE_ROWS,),
        page_tokens=PAGE_TOKENS,
        num_pages=2 * pages,
        max_context=longest,
        max_sequences=model.max_sequences,
        max_waiting=1 << 30,
    )
    size, rest = divmod(model.size_bytes, model.num_blocks)
    sizes = tuple(size + (block < rest) for block in range(model.num_blocks))
    num_chunks = system.num_chunks or num_chunks_for(cluster.num_devices)
    chunks_per_block = max(1, num_chunks // model.num_blocks)
    return messages.ModelSpec(
        model_name=model.name,
        manifest=b"",
        engine=engine,
        chunk_size_bytes=math.ceil(sizes[0] / chunks_per_block),
        block_sizes_bytes=sizes,
    )


def num_chunks_for(num_devices: int) -> int:
    """Chunks of a multicast: many, but fewer where many members count each."""
    return 256 if num_devices <= 256 else 128 if num_devices <= 2048 else 64


def _short(value: object) -> str:
    """A value as a line of a transcript."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
