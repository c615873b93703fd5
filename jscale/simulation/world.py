"""A simulated cluster: processes, machines, and what happens to them."""

import math
from collections.abc import Callable, Sequence

from jscale.cluster import events, messages, worker_effects, worker_events
from jscale.cluster.effects import Effect
from jscale.core.chunks import ChunkTable
from jscale.core.ids import WorkerId
from jscale.engine.config import TILE_ROWS, EngineConfig
from jscale.simulation.caches import HostCaches
from jscale.simulation.clock import VirtualClock
from jscale.simulation.draws import Draws
from jscale.simulation.gateway import SimulatedGateway
from jscale.simulation.launcher import SimulatedLauncher
from jscale.simulation.machines import Machines
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
from jscale.simulation.worker import BUNDLE, SimulatedWorker

PAGE_TOKENS = 16


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
        self.network = Network(self.clock)
        self.machines = Machines(cluster, self.network)
        self.streams = Streams(
            self.clock,
            cluster.message_latency_ns,
            cluster.message_jitter_ns,
            Draws(seed),
        )
        self.recorder = Recorder(self.trace, model.num_accelerators)
        self.plans = Plans()
        self.caches = HostCaches(system, self.machines)
        self.spec = model_spec(cluster, model, system, self.trace)
        self.chunks = ChunkTable(
            (BUNDLE.size_bytes, *self.spec.block_sizes_bytes),
            self.spec.chunk_size_bytes,
        )
        is_instant = system.is_instant
        self.process_start_ns = 0 if is_instant else cluster.process_start_ns
        self.executables_load_ns = 0 if is_instant else cluster.executables_load_ns
        self.compile_ns = 0 if is_instant else cluster.compile_ns
        self.workers: dict[WorkerId, SimulatedWorker] = {}
        self._prompts: dict[int, tuple[int, ...]] = {}
        self._transcript = transcript
        self._num_gateways = 0
        self.manager = SimulatedManager(self, num_workers, epoch=1)
        self.launcher = SimulatedLauncher(self)
        self.gateway = self._new_gateway((None, 0))
        for number in range(num_workers):
            self._start_preloaded(WorkerId(f"w{number}"))
        self.launcher.attach()

    # --- looking -----------------------------------------------------------------

    def find(self, worker: WorkerId) -> SimulatedWorker | None:
        """The worker, if it lives."""
        return self.workers.get(worker)

    def find_gateway(self, name: str) -> SimulatedGateway | None:
        """The gateway, if it lives."""
        return self.gateway if self.gateway.name == name else None

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

    def choose_host(self) -> int:
        """Where the next worker goes: to a host with a copy, or the emptiest."""
        now_ns = self.clock.now_ns
        free = self.machines.free_hosts
        return min(free, key=lambda h: (not self.caches.holds(h, now_ns), -free[h], h))

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

    # --- starts and ends ---------------------------------------------------------

    def _start_preloaded(self, name: WorkerId) -> None:
        host = self.choose_host()
        worker = SimulatedWorker(self, name, self.machines.take(name, host))
        self.recorder.started(name, host, 0)
        self.workers[name] = worker
        worker.preload()
        worker.attach()

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
