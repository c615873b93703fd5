"""jscale's choice of pipelines: sources are stages, and re-cuts must be worth it."""

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Collection, Sequence

from jscale.core.ids import WorkerId
from jscale.plan.execution import ExecutionPipeline, Holdings, PipelinePolicy
from jscale.plan.helping import (
    HelpedTargets,
    newest_for_each_target,
    pipeline_of,
)
from jscale.plan.sharing import covers, reinforced
from jscale.plan.source_load import gain_of_another


@dataclasses.dataclass(frozen=True)
class ExecutionPolicy(PipelinePolicy):
    """How far sources are shared, and how eagerly pipelines are re-cut."""

    max_pipelines_per_worker: int = 4
    """Non-local pipelines that a complete worker takes part in, at most: each holds KV
    pages there."""

    max_targets_per_pipeline: int = 8
    """Targets of a pipeline, at most: each adds a hop per token."""

    recut_growth: float = 1.5
    """How many times as many blocks targets must run after a re-cut: `worth_recut`."""

    handover_share: float = 0.0
    """What a hand-over of full batches to another pipeline costs, as a share of the
    load time. With k sub-groups targets hold the model together after 1/k of it: where
    a hand-over costs more than half of that, nobody is helped until then."""

    merged_share: float = 0.25
    """What each further micro-batch adds to a step, as a share of a step alone: 0 where
    reading the weights takes all the time, 1 where computing rows does."""

    sequences_per_replica: int = 16
    """What a local replica decodes together. While all sequences fit into local
    replicas, nobody needs more pipelines."""

    def __post_init__(self) -> None:
        assert self.max_pipelines_per_worker >= 0, self
        assert self.max_targets_per_pipeline >= 2, self
        assert self.recut_growth >= 1, self
        assert 0 <= self.merged_share <= 1, self
        assert self.handover_share >= 0, self
        assert self.sequences_per_replica >= 1, self

    def propose(
        self,
        holdings: Holdings,
        current: Sequence[ExecutionPipeline] = (),
        *,
        num_sequences: int | None = None,
    ) -> tuple[ExecutionPipeline, ...]:
        """Every pipeline that should be open now; those to keep are among them.

        A complete worker serves alone, and besides as a source. A target takes part in
        one pipeline: with other targets where together they hold the model, so that
        sources are left to themselves; else with a source that runs what is missing,
        so that one block is enough to help. What a source runs for its targets is cut
        alike, so that it runs in one step (`source_load`). Nothing is re-cut unless
        `worth_recut`. A target waits that would make its source slower, or for which
        no source may take on more.

        With 4 blocks, w0 complete and w1 holding blocks 0 and 1, the pipelines are
        `w0[0-3]` and `w1[0-1] → w0[2-3]`. Takes time in proportion to the workers.
        """
        sources = holdings.complete_workers
        local = [ExecutionPipeline.local(w, holdings.num_blocks) for w in sources]
        running = [p for p in current if not p.is_local and holdings.can_run(p)]
        room = self.sequences_per_replica * len(sources)
        if num_sequences is not None and num_sequences <= room:
            return (*local, *newest_for_each_target(running, holdings))
        best: tuple[ExecutionPipeline, ...] = ()
        best_rate = -1.0
        for is_wide, pools_first in (
            WAYS if _has_choice(holdings, running) else WAYS[:1]
        ):
            joined = self._join_targets(holdings, running, is_wide=is_wide)
            helped = self._help_targets(holdings, running, joined, pools_first)
            rate = sum(1 / pipeline.num_blocks_of_busiest for pipeline in joined)
            rate += helped.rate
            if rate > best_rate + 1e-9:
                best, best_rate = (*joined, *helped.pipelines()), rate
        return (*local, *best)

    def _help_targets(
        self,
        holdings: Holdings,
        running: Sequence[ExecutionPipeline],
        joined: Sequence[ExecutionPipeline],
        pools_first: bool,
    ) -> HelpedTargets:
        """Pipelines with a source for the targets that are not joined."""
        helped = HelpedTargets(
            holdings,
            max_pipelines_per_worker=self.max_pipelines_per_worker,
            max_targets_per_pipeline=self.max_targets_per_pipeline,
            recut_growth=self.recut_growth,
            merged_share=self.merged_share,
        )
        helped.keep(running, {w for pipeline in joined for w in pipeline.workers})
        if self._is_helpful(holdings):
            helped.improve(pools_first=pools_first)
        return helped

    def _is_helpful(self, holdings: Holdings) -> bool:
        """Whether what a source brings is worth the hand-over that follows."""
        num_sources = len(holdings.complete_workers)
        num_subgroups = min(num_sources, len(holdings.ready) - num_sources)
        return (
            num_subgroups > 0
            and self.max_pipelines_per_worker > 0
            and self.handover_share <= 1 / (2 * num_subgroups)
        )

    def _join_targets(
        self,
        holdings: Holdings,
        running: Sequence[ExecutionPipeline],
        *,
        is_wide: bool,
    ) -> list[ExecutionPipeline]:
        """Pipelines of targets alone; those that run already stay as they are."""
        sources = frozenset(holdings.complete_workers)
        joined = newest_for_each_target(
            [p for p in running if sources.isdisjoint(p.workers)], holdings
        )
        taken = {worker for pipeline in joined for worker in pipeline.workers}
        rivals: dict[WorkerId, list[ExecutionPipeline]] = defaultdict(list)
        for pipeline in running:
            for worker in pipeline.workers:
                if worker not in sources:
                    rivals[worker].append(pipeline)
        free = [w for w in holdings.partial_workers if w not in taken]
        for team in self._covers(holdings, free, is_wide=is_wide):
            pipeline = pipeline_of(holdings, team)
            if all(
                worth_recut(rival, pipeline, policy=self, sources=sources)
                for worker in team
                for rival in rivals[worker]
            ):
                joined.append(pipeline)
        return joined

    def _covers(
        self, holdings: Holdings, free: Sequence[WorkerId], *, is_wide: bool
    ) -> list[tuple[WorkerId, ...]]:
        """Targets that hold the model together, and who makes them faster.

        If they are to be wide, half of the covers are given up to make the others
        faster, but for what forms covers again.
        """
        num_blocks, num_max = holdings.num_blocks, self.max_targets_per_pipeline
        is_helpful = self._is_helpful(holdings)

        def gain_elsewhere(mask: int) -> float:
            if not is_helpful:
                return 0.0
            return gain_of_another(mask, 0, num_blocks, self.merged_share)

        found = list(covers(holdings.masks, free, num_blocks, num_max))
        if is_wide:
            found = found[: -(-len(found) // 2)]
        covering = {worker for team in found for worker in team}
        spares = [worker for worker in free if worker not in covering]
        made = list(
            reinforced(
                holdings.masks, found, spares, num_blocks, num_max, gain_elsewhere
            )
        )
        covering = {worker for team in made for worker in team}
        rest = [worker for worker in free if worker not in covering]
        return [*made, *covers(holdings.masks, rest, num_blocks, num_max)]


def recut_loss(growth: float, handover_share: float, num_blocks: int) -> float:
    """What a target's time is lost to re-cuts, and to waiting for them, while it loads.

    A re-cut makes live sequences recompute their KV: a share c of the load time, in
    which the target does nothing else. In return it does more of each token's work, in
    proportion to the blocks that it runs. If blocks arrive evenly, a target that holds
    i of n and runs r(i) of them loses (i − r(i)) / n of its time until the next one
    comes, and its loss, as a share of the load time, is

        c · re-cuts  +  Σ (i − r(i)) / n².

    For n = 8 it is least for g = 1, a re-cut at every block, up to c = 1.7 %, then for
    1.25 to 1.5 up to 4 %; from 5 % one re-cut on the way is best, and from 20 % none.
    From 0.5 to 5 % a growth of 1.5 (at 1, 2, 3, 5 and 8 blocks) loses at most 5 % of
    the load time more than the best. Recomputing a few hundred tokens takes 20 to 100
    ms where loading takes 2 to 10 s. Where KV is moved, or loading takes less than a
    second, choose by `best_growth`.

    Args:
      growth: g, how many times as many blocks a target must run after a re-cut.
      handover_share: c.
      num_blocks: n.
    """
    running, num_recuts, waited = 0, 0, 0
    for num_held in range(1, num_blocks + 1):
        if not running or num_held == num_blocks or num_held >= growth * running:
            num_recuts += running > 0
            running = num_held
        waited += num_held - running
    return handover_share * num_recuts + waited / num_blocks**2


def best_growth(handover_share: float, num_blocks: int) -> float:
    """The growth that loses least by `recut_loss`, for `ExecutionPolicy.recut_growth`.

    `best_growth(0.03, 8)` is 1.5.
    """
    steps = [1 + step / 4 for step in range(4 * num_blocks + 1)]
    return min(steps, key=lambda g: recut_loss(g, handover_share, num_blocks))


HOLDINGS_TRIED_MAX = 256
"""With more different holdings than that, the first of `WAYS` is taken."""


def _has_choice(holdings: Holdings, running: Sequence[ExecutionPipeline]) -> bool:
    """Whether targets that take part in nothing hold what others of them do not.

    They do not where all were sent the same blocks in the same order. Where all hold
    something else, there is too much to try.
    """
    busy = {worker for pipeline in running for worker in pipeline.workers}
    masks = {holdings.masks[w] for w in holdings.partial_workers if w not in busy}
    most_first = sorted(masks, key=lambda mask: -mask.bit_count())
    return len(masks) <= HOLDINGS_TRIED_MAX and any(
        fewer & ~more for more, fewer in itertools.pairwise(most_first)
    )


WAYS = ((False, True), (False, False), (True, True), (True, False))
"""What is tried for targets that take part in nothing yet, the fastest to be chosen:
whether covers are to be wide, and whether teams are pooled first."""

DEFAULT_POLICY = ExecutionPolicy()


def worth_recut(
    current: ExecutionPipeline,
    proposed: ExecutionPipeline,
    *,
    policy: ExecutionPolicy = DEFAULT_POLICY,
    sources: Collection[WorkerId] = (),
) -> bool:
    """Whether to close one pipeline for another: local, or targets run g× as much.

    Why growth, and why 1.5-fold: `recut_loss`.

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
