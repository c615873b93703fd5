"""Several stage hosts in one thread, and the messages between them as a queue.

The world decides what happens next, seeded: which host runs, which message arrives.
Messages between two workers keep their order; nothing else is promised.
"""

import collections
import dataclasses
import random

import msgspec
import pytest

from jscale.core.ids import PipelineId, SequenceId, WorkerId
from jscale.engine.executables import ExecutableSet
from jscale.engine.executor import StageExecutor
from jscale.engine.program import ModelProgram
from jscale.engine.request import Request, SamplingParams
from jscale.pipeline.messages import (
    Emitted,
    Finished,
    KvMoved,
    KvTicket,
    Moved,
    PipelineSpec,
    Rejected,
    Returned,
    ServeEvent,
    StageMessage,
    StageSpec,
    Submit,
)
from jscale.pipeline.outbox import Outbox
from jscale.pipeline.stage_host import StageHost
from jscale.store.block_store import BlockStore

CODEC = msgspec.msgpack.Decoder(StageMessage)
PROMPTS = {
    "a": (1, 403, 407, 261),
    "b": (1, 378, 432, 383, 286, 261, 376, 298, 315, 421),
    "c": (1,),
    "d": (1, 395, 317),
    "e": (1, *range(260, 300)),
}


@dataclasses.dataclass
class Client:
    """What one request has got so far."""

    request: Request
    tokens: list[int] = dataclasses.field(default_factory=list)
    attempt: int = 0
    finish_reason: str = ""
    rejected: str = ""
    kv: KvTicket | None = None
    num_moved_tokens: int = 0


class World:
    """Workers, the wires between them, and a gateway that hands sequences over."""

    def __init__(
        self,
        program: ModelProgram,
        executables: ExecutableSet,
        store: BlockStore,
        seed: int = 0,
    ) -> None:
        self.program = program
        self.executables = executables
        self.store = store
        self.random = random.Random(seed)
        self.hosts: dict[WorkerId, StageHost] = {}
        self.wires: dict[tuple[str, str], collections.deque[tuple[bytes, bytes]]] = {}
        self.clients: dict[SequenceId, Client] = {}
        self.returned: list[SequenceId] = []
        self.closed: list[tuple[str, PipelineId]] = []
        self.next_pipeline = 1
        self.num_moved = 0
        self.now_ns = 0
        self.unreachable: list[tuple[WorkerId, WorkerId]] = []
        self.config = program.engine

    def add_worker(self, name: str) -> WorkerId:
        worker = WorkerId(name)
        executor = StageExecutor(self.executables)
        for block in range(self.program.partition.num_blocks):
            executor.set_block(block, self.store.publish(block))
        self.hosts[worker] = StageHost(
            worker,
            self.config,
            executor,
            _Wire(self, worker),
            eos_token_ids=self.program.model.eos_token_ids,
            now_ns=self._tick,
        )
        return worker

    def kill(self, worker: WorkerId) -> None:
        """The worker is gone; the others are told."""
        del self.hosts[worker]
        for wire in [wire for wire in self.wires if worker in wire]:
            del self.wires[wire]
        for host in self.hosts.values():
            host.break_with(worker)

    def open(
        self, *cut: tuple[str, int], continues: PipelineSpec | None = None
    ) -> PipelineSpec:
        """Opens a pipeline: workers and how many blocks each runs, in order."""
        stages, first_block = [], 0
        for worker, num_blocks in cut:
            stages.append(StageSpec(WorkerId(worker), worker, first_block, num_blocks))
            first_block += num_blocks
        spec = PipelineSpec(
            PipelineId(self.next_pipeline),
            tuple(stages),
            self._num_pages(),
            continues.pipeline if continues else None,
        )
        self.next_pipeline += 1
        for worker in spec.workers:
            self.hosts[worker].open(spec)
        return spec

    def close(
        self,
        spec: PipelineSpec,
        *,
        finish: bool = False,
        continued_by: PipelineSpec | None = None,
    ) -> None:
        """Workers hear of it one after the other, in any order."""
        workers = [worker for worker in spec.workers if worker in self.hosts]
        self.random.shuffle(workers)
        for worker in workers:
            self.hosts[worker].close(
                spec.pipeline,
                "re-cut",
                finish=finish,
                continued_by=continued_by.pipeline if continued_by else None,
            )
            if worker != workers[-1]:
                self.run(self.random.randrange(30))

    def submit(
        self,
        spec: PipelineSpec,
        name: str,
        prompt: tuple[int, ...] = (1,),
        **sampling: object,
    ) -> None:
        params = SamplingParams(**{"max_tokens": 40, **sampling})  # type: ignore[arg-type]
        sequence = SequenceId(name)
        self.clients[sequence] = Client(Request(sequence, prompt, params))
        self.hand_over(spec, sequence)

    def hand_over(self, spec: PipelineSpec, sequence: SequenceId) -> None:
        client = self.clients[sequence]
        client.attempt += 1
        command = Submit(
            spec.pipeline,
            sequence,
            client.attempt,
            client.request,
            tuple(client.tokens),
            client.kv,
        )
        client.kv = None
        self.hosts[spec.head].submit("gateway", command)

    def hand_over_returned(self, spec: PipelineSpec) -> None:
        returned, self.returned = self.returned, []
        for sequence in returned:
            self.hand_over(spec, sequence)

    def step(self) -> bool:
        """One thing happens, whichever; False if nothing can."""
        if self.unreachable and self.random.random() < 0.5:
            worker, peer = self.unreachable.pop(0)
            if worker in self.hosts:
                self.hosts[worker].break_with(peer)
            return True
        acts = [(wire, queue) for wire, queue in self.wires.items() if queue]
        hosts = list(self.hosts.values())
        self.random.shuffle(acts)
        self.random.shuffle(hosts)
        if acts and self.random.random() < 0.5:
            self._arrive(*acts[0])
            return True
        if any(host.run_one() for host in hosts):
            return True
        acts = [(wire, queue) for wire, queue in self.wires.items() if queue]
        if acts:
            self._arrive(*acts[0])
        return bool(acts or self.unreachable)

    def run(self, num_steps: int = 1_000_000) -> None:
        for _ in range(num_steps):
            if not self.step():
                return

    def _arrive(
        self, wire: tuple[str, str], queue: collections.deque[tuple[bytes, bytes]]
    ) -> None:
        header, payload = queue.popleft()
        host = self.hosts[WorkerId(wire[1])]
        host.take(CODEC.decode(header), memoryview(payload))

    def heard(self, event: ServeEvent) -> None:
        """The gateway's rules: late words of an old attempt count for nothing."""
        client = self.clients[event.sequence]
        if event.attempt != client.attempt or client.finish_reason:
            return
        match event:
            case Emitted(index=index, token=token):
                assert index == len(client.tokens), "tokens come in order, each once"
                client.tokens.append(token)
            case Finished(reason=reason):
                client.finish_reason = reason
            case Moved():
                self.num_moved += 1
            case Returned():
                client.kv = event.kv
                self.returned.append(event.sequence)
            case KvMoved(num_tokens=num_tokens):
                client.num_moved_tokens += num_tokens
            case Rejected(reason=reason):
                client.rejected = reason

    def _tick(self) -> int:
        """A clock that goes on whenever it is looked at."""
        self.now_ns += 1000
        return self.now_ns

    def _num_pages(self) -> int:
        return self.program.engine.num_pages // 8


class _Wire(Outbox):
    def __init__(self, world: World, worker: WorkerId) -> None:
        self._world = world
        self._worker = worker

    def send(self, stage: StageSpec, message: StageMessage, payload: bytes) -> None:
        if stage.worker in self._world.hosts:
            wire = self._world.wires.setdefault(
                (self._worker, stage.worker), collections.deque()
            )
            wire.append((msgspec.msgpack.encode(message), payload))
        else:
            self._world.unreachable.append((self._worker, stage.worker))

    def emit(self, gateway: str, events: tuple[ServeEvent, ...]) -> None:
        assert gateway == "gateway"
        for event in events:
            self._world.heard(event)

    def closed(self, pipeline: PipelineId, reason: str) -> None:
        self._world.closed.append((self._worker, pipeline))


def expected_alone(world: World, **sampling: object) -> dict[str, list[int]]:
    """Each prompt's tokens, run alone on a single worker."""
    world.add_worker("alone")
    spec = world.open(("alone", 5))
    tokens = {}
    for name, prompt in PROMPTS.items():
        world.submit(spec, f"alone-{name}", prompt, **sampling)
        world.run()
        tokens[name] = world.clients[SequenceId(f"alone-{name}")].tokens
    return tokens


def count_rows(world: World, worker: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every step that the worker runs from now on."""
    rows: list[int] = []
    executor = world.hosts[WorkerId(worker)]._executor
    run = executor.run

    def counted(first_block, num_blocks, batch, *rest):  # type: ignore[no-untyped-def]
        rows.append(batch.num_rows)
        return run(first_block, num_blocks, batch, *rest)

    monkeypatch.setattr(executor, "run", counted)
    return rows
