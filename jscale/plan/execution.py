"""Who computes what: holdings become ExecutionPipelines, re-cut as blocks arrive."""

import dataclasses
import functools
import types
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from jscale.core.ids import WorkerId
from jscale.plan.sharing import covers, share_blocks


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

    def __str__(self) -> str:
        """As people read it: `w0[0-2] → w1[3-7]`."""
        return " → ".join(str(stage) for stage in self.stages)

    @staticmethod
    def of_workers(workers: Sequence[WorkerId]) -> "ExecutionPipeline":
        """The pipeline in which `workers[i]` runs block i; neighbours are merged."""
        stages: list[Stage] = []
        for block, worker in enumerate(workers):
            if stages and stages[-1].worker == worker:
                last = stages.pop()
                stages.append(Stage(worker, last.first_block, last.num_blocks + 1))
            else:
                stages.append(Stage(worker, block, 1))
        return ExecutionPipeline(tuple(stages))


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
        for worker, blocks in ready.items():
            assert all(0 <= b < self.num_blocks for b in blocks), (worker, blocks)
        object.__setattr__(self, "ready", types.MappingProxyType(ready))

    @functools.cached_property
    def complete_workers(self) -> tuple[WorkerId, ...]:
        """Those that hold every block."""
        return tuple(w for w, b in self.ready.items() if len(b) == self.num_blocks)

    @functools.cached_property
    def partial_workers(self) -> tuple[WorkerId, ...]:
        """Those that hold some blocks, but not all."""
        return tuple(w for w, b in self.ready.items() if 0 < len(b) < self.num_blocks)

    def holds(self, worker: WorkerId, block: int) -> bool:
        """Whether a worker holds a block ready."""
        return block in self.ready.get(worker, ())

    def can_run(self, pipeline: ExecutionPipeline) -> bool:
        """Whether every stage's worker holds the blocks of that stage."""
        return pipeline.num_blocks == self.num_blocks and all(
            self.holds(stage.worker, block)
            for stage in pipeline.stages
            for block in stage.blocks
        )


@dataclasses.dataclass(frozen=True)
class ExecutionPolicy:
    """How far sources are shared, and how eagerly pipelines are re-cut."""

    max_pipelines_per_worker: int = 4
    """Non-local pipelines that a complete worker takes part in, at most: each holds KV
    pages there."""

    max_targets_per_pipeline: int = 8
    """Targets that join up without a source, at most: each adds a hop per token."""

    recut_growth: float = 1.5
    """How many times as many blocks targets must run after a re-cut: `worth_recut`."""

    def __post_init__(self) -> None:
        assert self.max_pipelines_per_worker >= 0, self
        assert self.max_targets_per_pipeline >= 2, self
        assert self.recut_growth >= 1, self


DEFAULT_POLICY = ExecutionPolicy()


def propose(
    holdings: Holdings,
    *,
    policy: ExecutionPolicy = DEFAULT_POLICY,
    current: Sequence[ExecutionPipeline] = (),
) -> tuple[ExecutionPipeline, ...]:
    """Every pipeline that should be open now; those to keep are among them unchanged.

    A complete worker serves alone, and besides as a source. A target takes part in one
    pipeline: with other targets where together they hold the model, so that sources
    are left to themselves; else with a source that runs what the target lacks, so that
    one block is enough to help. Nothing is re-cut unless `worth_recut`. Targets beyond
    what the sources may take part in wait, those with the fewest blocks last.

    With 4 blocks, w0 complete and w1 holding blocks 0 and 1, the pipelines are
    `w0[0-3]` and `w1[0-1] → w0[2-3]`.

    Args:
      holdings: blocks ready now; leave out workers that must not be used.
      policy: bounds and hysteresis.
      current: what is open now; a target keeps its source as long as both live.
    """
    sources = holdings.complete_workers
    local = [_pipeline(holdings, (worker,)) for worker in sources]
    running = [p for p in current if not p.is_local and holdings.can_run(p)]
    joined = _join_targets(holdings, policy, running)
    taken = {worker for pipeline in joined for worker in pipeline.workers}
    helped = _keep_helped(holdings, policy, running, taken)
    uses = Counter(w for p in helped for w in p.workers if w in sources)
    taken.update(w for p in helped for w in p.workers)
    waiting = [w for w in holdings.partial_workers if w not in taken]
    for target in sorted(waiting, key=lambda w: -len(holdings.ready[w])):
        source = min(sources, key=lambda w: uses[w], default=None)
        if source is None or uses[source] >= policy.max_pipelines_per_worker:
            break
        uses[source] += 1
        helped.append(_pipeline(holdings, (target,), source))
    return (*local, *joined, *helped)


def worth_recut(
    current: ExecutionPipeline,
    proposed: ExecutionPipeline,
    *,
    policy: ExecutionPolicy = DEFAULT_POLICY,
    sources: Collection[WorkerId] = (),
) -> bool:
    """Whether to close one pipeline for another: local, or targets run g× as much.

    Cost model. A re-cut makes live sequences recompute their KV: c seconds of a
    target's time. In return the target does more of each token's work, in proportion
    to the blocks it runs. If blocks arrive evenly over the load time T and a re-cut is
    made whenever the share has grown g-fold, then n blocks take log_g(n) re-cuts, and
    between two of them the target runs, on average, 2/(1 + g) of what it holds. As it
    holds half the model on average, the loss in seconds of a target's time is

        c · ln n / ln g  +  T/2 · (g − 1)/(g + 1).

    For n = 8, g = 1.5 is better than 1.25 once c > 1.1 % of T, and better than 2 until
    c > 3.1 % of T: re-cuts at 1, 2, 3, 5 and 8 blocks. Recomputing a few hundred tokens
    takes 20 to 100 ms where loading takes 2 to 10 s, so g = 1.5.

    Args:
      current: what is open.
      proposed: what would serve the same targets instead.
      policy: gives g, `recut_growth`.
      sources: complete workers: what they run does not count, so that targets which
        can do without them are seen to do more. If none are named, any worker's share
        may grow.
    """
    if proposed.is_local:
        return not current.is_local

    def grows(before: int, after: int) -> bool:
        return before > 0 and after >= before * policy.recut_growth

    def num_blocks_of_targets(pipeline: ExecutionPipeline) -> int:
        return sum(s.num_blocks for s in pipeline.stages if s.worker not in sources)

    if grows(num_blocks_of_targets(current), num_blocks_of_targets(proposed)):
        return True
    return any(
        grows(current.num_blocks_of(worker), proposed.num_blocks_of(worker))
        for worker in current.workers
        if worker not in sources
    )


def _join_targets(
    holdings: Holdings, policy: ExecutionPolicy, running: Sequence[ExecutionPipeline]
) -> list[ExecutionPipeline]:
    """Pipelines of targets alone; those that run already stay as they are."""
    sources = set(holdings.complete_workers)
    joined: list[ExecutionPipeline] = []
    taken: set[WorkerId] = set()
    for pipeline in running:
        if (sources | taken).isdisjoint(pipeline.workers):
            joined.append(pipeline)
            taken.update(pipeline.workers)
    free = [w for w in holdings.partial_workers if w not in taken]
    for targets in covers(
        holdings.ready, free, holdings.num_blocks, policy.max_targets_per_pipeline
    ):
        pipeline = _pipeline(holdings, targets)
        rivals = [p for p in running if not set(targets).isdisjoint(p.workers)]
        if all(
            worth_recut(rival, pipeline, policy=policy, sources=sources)
            for rival in rivals
        ):
            joined.append(pipeline)
    return joined


def _keep_helped(
    holdings: Holdings,
    policy: ExecutionPolicy,
    running: Sequence[ExecutionPipeline],
    taken: Collection[WorkerId],
) -> list[ExecutionPipeline]:
    """Pipelines with a source that go on, as they are or re-cut on the same source."""
    uses: Counter[WorkerId] = Counter()
    seen = set(taken)
    helped = []
    for pipeline in running:
        sources = [w for w in pipeline.workers if w in holdings.complete_workers]
        targets = [w for w in pipeline.workers if w in holdings.partial_workers]
        if not sources or not targets or not seen.isdisjoint(targets):
            continue
        if any(uses[w] >= policy.max_pipelines_per_worker for w in sources):
            continue
        proposed = _pipeline(holdings, targets, sources[0])
        if worth_recut(pipeline, proposed, policy=policy, sources=sources):
            pipeline = proposed
        helped.append(pipeline)
        uses.update(sources)
        seen.update(targets)
    return helped


def _pipeline(
    holdings: Holdings,
    targets: Sequence[WorkerId],
    source: WorkerId | None = None,
) -> ExecutionPipeline:
    """The pipeline of these targets, a source running what none of them holds."""
    return ExecutionPipeline.of_workers(
        share_blocks(holdings.ready, targets, source, holdings.num_blocks)
    )
