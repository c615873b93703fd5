"""Other systems' choices of pipelines, to compare with: policies by name.

Each is what a paper says, in our words: they neither re-cut with hysteresis nor look at
what a choice costs. `ExecutionPolicy` is ours.
"""

import dataclasses
from collections import deque
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from jscale.core.errors import ConfigError
from jscale.core.ids import WorkerId
from jscale.plan.execution import ExecutionPipeline, Holdings, PipelinePolicy
from jscale.plan.execution_policy import ExecutionPolicy
from jscale.plan.helping import pipeline_of


@dataclasses.dataclass(frozen=True)
class LocalOnlyPolicy(PipelinePolicy):
    """Load, then serve: a worker helps once it holds the whole model."""

    def propose(
        self,
        holdings: Holdings,
        current: Sequence[ExecutionPipeline] = (),
        *,
        num_sequences: int | None = None,
    ) -> tuple[ExecutionPipeline, ...]:
        """A local replica for each complete worker."""
        return _local(holdings, holdings.complete_workers)


@dataclasses.dataclass(frozen=True)
class LambdaScalePolicy(PipelinePolicy):
    """λScale's Algorithm 2: one target of each sub-group to a pipeline, no sources.

    The t-th targets of all sub-groups form pipeline t, which is opened when together
    they hold the model, cut so that the busiest runs least. It is never cut anew. When
    all transfers have ended, every pipeline gives way to local replicas at once.

    Targets are dealt to sub-groups in the order of the holdings, as `subgroups.deal`
    does: with k sources, the next k workers are the first targets of each.

    Source: λScale (arXiv 2502.09922, section 4.3, Algorithm 2). Its artifact differs in
    how a pipeline runs, not in which there are: in waves through a controller, which is
    `ServingCosts.is_lock_step`.

    Args:
      num_sources: k, the first so many workers; all others are targets. None: all
        that are complete and in no pipeline, so that a target which ends outside of one
        serves alone at once; that is better than the paper's, and knows no order of
        scale-outs.

    Raises:
      ConfigError: there is no source.
    """

    num_sources: int | None = 1

    def __post_init__(self) -> None:
        if self.num_sources is not None and self.num_sources < 1:
            raise ConfigError(f"num_sources {self.num_sources}: give at least 1")

    def propose(
        self,
        holdings: Holdings,
        current: Sequence[ExecutionPipeline] = (),
        *,
        num_sequences: int | None = None,
    ) -> tuple[ExecutionPipeline, ...]:
        """Sources alone, and the pipelines of those targets that can have one."""
        workers = list(holdings.ready)
        whole = (1 << holdings.num_blocks) - 1
        if all(mask == whole for mask in holdings.masks.values()):
            return _local(holdings, workers)
        runs = [p for p in current if not p.is_local and holdings.can_run(p)]
        serving = {worker for pipeline in runs for worker in pipeline.workers}
        sources, targets = workers[: self.num_sources], workers[self.num_sources or 0 :]
        if self.num_sources is None:
            sources = [w for w in holdings.complete_workers if w not in serving]
            is_source = frozenset(sources)
            targets = [worker for worker in workers if worker not in is_source]
        alone = [worker for worker in sources if holdings.masks[worker] == whole]
        pipelines = [*_local(holdings, alone), *runs]
        num_sources = max(1, len(sources))
        for first in range(0, len(targets), num_sources):
            group = targets[first : first + num_sources]
            union = 0
            for target in group:
                union |= holdings.masks[target]
            if union == whole and serving.isdisjoint(group):
                pipelines.append(pipeline_of(holdings, group))
        return tuple(pipelines)


@dataclasses.dataclass(frozen=True)
class BlitzScalePolicy(PipelinePolicy):
    """BlitzScale's live scaling: one source and one target, which runs all it can.

    Each source is paired with the next target that still loads, and serves with it
    alone until the target is complete: the target runs the layers that it has, from the
    first on, but not more than half, the source the rest. At half the layers the pair
    serves twice as much as the source alone. There the queue decides anew for every
    layer who runs it (`zigzag`), so that moving the cut costs nothing; as pipelines,
    each block that arrives is a re-cut.

    Source: BlitzScale (arXiv 2412.17246, section 5.2).
    """

    def propose(
        self,
        holdings: Holdings,
        current: Sequence[ExecutionPipeline] = (),
        *,
        num_sequences: int | None = None,
    ) -> tuple[ExecutionPipeline, ...]:
        """Pairs, and local replicas of the complete workers that are in none."""
        num_blocks = holdings.num_blocks
        sources = dict.fromkeys(holdings.complete_workers)
        partner: dict[WorkerId, WorkerId] = {}
        for pipeline in current:
            target, source = pipeline.workers[0], pipeline.workers[-1]
            if (
                target not in sources
                and source in sources
                and holdings.masks.get(target)
            ):
                partner[target] = source
        taken = set(partner.values())
        free = deque(source for source in sources if source not in taken)
        paired: list[ExecutionPipeline] = []
        for target in holdings.partial_workers:
            leading = 0
            while leading < num_blocks // 2 and holdings.holds(target, leading):
                leading += 1
            if not leading or (target not in partner and not free):
                continue
            source = partner[target] if target in partner else free.popleft()
            cut = (1 << leading) - 1
            paired.append(pipeline_of(holdings, (target,), source, cut))
        busy = {worker for pipeline in paired for worker in pipeline.workers}
        alone = [worker for worker in sources if worker not in busy]
        return (*_local(holdings, alone), *paired)


PIPELINE_POLICIES: Mapping[str, PipelinePolicy] = MappingProxyType(
    {
        "jscale": ExecutionPolicy(),
        "lambdascale": LambdaScalePolicy(num_sources=None),
        "blitzscale": BlitzScalePolicy(),
        "local": LocalOnlyPolicy(),
    }
)
"""Policies by name."""


def _local(
    holdings: Holdings, workers: Sequence[WorkerId]
) -> tuple[ExecutionPipeline, ...]:
    return tuple(
        ExecutionPipeline.local(worker, holdings.num_blocks) for worker in workers
    )
