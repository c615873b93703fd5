"""Who computes what: holdings, ExecutionPipelines, and the policy between them."""

import abc
import dataclasses
import functools
import itertools
import types
from collections.abc import Collection, Mapping, Sequence

from jscale.core.ids import WorkerId


@dataclasses.dataclass(frozen=True)
class Stage:
    """Neighbouring blocks that one worker runs for one pipeline."""

    worker: WorkerId
    first_block: int
    num_blocks: int

    def __post_init__(self) -> None:
        assert self.first_block >= 0, self
        assert self.num_blocks >= 1, self

    @property
    def blocks(self) -> range:
        """The blocks run, in order."""
        return range(self.first_block, self.first_block + self.num_blocks)

    @property
    def mask(self) -> int:
        """The same as bits: 0b110 for blocks 1 and 2."""
        return ((1 << self.num_blocks) - 1) << self.first_block

    def __str__(self) -> str:
        """As people read it: `w0[0-2]`, or `w0[7]` for a single block."""
        last = f"-{self.blocks[-1]}" if self.num_blocks > 1 else ""
        return f"{self.worker}[{self.first_block}{last}]"


@dataclasses.dataclass(frozen=True)
class ExecutionPipeline:
    """Stages in order, together running every block once; equal when its stages are.

    A worker may run several stages, but never two in a row: those would be one.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        assert self.stages, "a pipeline has at least one stage"
        next_block, before = 0, None
        for stage in self.stages:
            assert stage.first_block == next_block, self
            assert stage.worker != before, self
            next_block, before = stage.first_block + stage.num_blocks, stage.worker

    @property
    def num_blocks(self) -> int:
        """How many blocks the model has."""
        return self.stages[-1].blocks.stop

    @property
    def head(self) -> WorkerId:
        """Who runs the first stage and forms the batches."""
        return self.stages[0].worker

    @property
    def is_local(self) -> bool:
        """Whether one worker runs the whole model."""
        return len(self.stages) == 1

    @property
    def workers(self) -> tuple[WorkerId, ...]:
        """Every worker once, in order of first use."""
        return tuple(dict.fromkeys(stage.worker for stage in self.stages))

    def num_blocks_of(self, worker: WorkerId) -> int:
        """How many blocks a worker runs; 0 if it takes no part."""
        return sum(s.num_blocks for s in self.stages if s.worker == worker)

    @property
    def num_blocks_of_busiest(self) -> int:
        """How many blocks the worker runs that runs most."""
        return max(self.num_blocks_of(worker) for worker in self.workers)

    def continues(self, older: "ExecutionPipeline") -> bool:
        """Whether a re-cut may keep the KV that is not the first stage's.

        Both have two stages on the same two workers, and the first has grown: what the
        second runs, it ran before. Only the first stage recomputes, and the source,
        which all pipelines wait for, goes on at once.
        """
        return (
            len(self.stages) == len(older.stages) == 2
            and self.workers == older.workers
            and self.stages[0].num_blocks > older.stages[0].num_blocks
        )

    def __str__(self) -> str:
        """As people read it: `w0[0-2] → w1[3-7]`."""
        return " → ".join(str(stage) for stage in self.stages)

    @staticmethod
    def of_workers(workers: Sequence[WorkerId]) -> "ExecutionPipeline":
        """The pipeline in which `workers[i]` runs block i; neighbours are merged."""
        stages: list[Stage] = []
        next_block = 0
        for worker, run in itertools.groupby(workers):
            stages.append(Stage(worker, next_block, len(list(run))))
            next_block += stages[-1].num_blocks
        return ExecutionPipeline(tuple(stages))

    @staticmethod
    def local(worker: WorkerId, num_blocks: int) -> "ExecutionPipeline":
        """The pipeline in which one worker runs the whole model."""
        return ExecutionPipeline((Stage(worker, 0, num_blocks),))


@dataclasses.dataclass(frozen=True)
class Holdings:
    """Which worker holds which blocks ready to compute with, at one moment.

    Read-only; workers keep the order in which they are given, which settles every tie.
    By `Holdings({w0: {0, 1}, w1: {0}}, 2)` w0 is complete and w1 holds block 0 of 2.
    """

    ready: Mapping[WorkerId, Collection[int]]
    num_blocks: int

    def __post_init__(self) -> None:
        assert self.num_blocks >= 1, self.num_blocks
        ready = {worker: frozenset(blocks) for worker, blocks in self.ready.items()}
        for blocks in set(ready.values()):
            assert all(0 <= b < self.num_blocks for b in blocks), blocks
        object.__setattr__(self, "ready", types.MappingProxyType(ready))

    @functools.cached_property
    def complete_workers(self) -> tuple[WorkerId, ...]:
        """Those that hold every block."""
        return tuple(w for w, b in self.ready.items() if len(b) == self.num_blocks)

    @functools.cached_property
    def partial_workers(self) -> tuple[WorkerId, ...]:
        """Those that hold some blocks, but not all."""
        return tuple(w for w, b in self.ready.items() if 0 < len(b) < self.num_blocks)

    @functools.cached_property
    def masks(self) -> Mapping[WorkerId, int]:
        """The blocks of each worker as bits: 0b101 for blocks 0 and 2."""
        known = {
            blocks: sum(1 << block for block in blocks)
            for blocks in set(self.ready.values())
        }
        return {worker: known[blocks] for worker, blocks in self.ready.items()}

    def holds(self, worker: WorkerId, block: int) -> bool:
        """Whether a worker holds a block ready."""
        return block in self.ready.get(worker, ())

    def can_run(self, pipeline: ExecutionPipeline) -> bool:
        """Whether every stage's worker holds the blocks of that stage."""
        return pipeline.num_blocks == self.num_blocks and all(
            stage.mask & ~self.masks.get(stage.worker, 0) == 0
            for stage in pipeline.stages
        )


class PipelinePolicy(abc.ABC):
    """Decides which pipelines should be open; a frozen value, so that runs repeat."""

    @abc.abstractmethod
    def propose(
        self,
        holdings: Holdings,
        current: Sequence[ExecutionPipeline] = (),
        *,
        num_sequences: int | None = None,
    ) -> tuple[ExecutionPipeline, ...]:
        """Every pipeline that should be open now; those to keep are among them.

        Given again what it proposed, with the same holdings, it proposes the same.

        Args:
          holdings: blocks ready now; leave out workers that must not be used. Whoever
            has no block yet may be among them, so that policies which wait for all know
            for whom they wait. Their order settles every tie.
          current: what is open now.
          num_sequences: how many are being served or wait; None: more than can be.
        """
