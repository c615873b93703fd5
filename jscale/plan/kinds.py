"""The kinds of multicast plan, and the one way to ask for a plan."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from jscale.core.errors import ConfigError
from jscale.core.ids import WorkerId
from jscale.plan.binary_tree import BinaryTreePlan
from jscale.plan.binomial import BinomialPlan
from jscale.plan.chain import ChainPlan
from jscale.plan.flat import FlatPlan
from jscale.plan.hypercube import HypercubePlan
from jscale.plan.multicast_plan import MulticastPlan
from jscale.plan.scatter_allgather import ScatterAllgatherPlan
from jscale.plan.subgroups import SubgroupPlan, deal

PLAN_KINDS: Mapping[str, type[MulticastPlan]] = MappingProxyType(
    {
        plan.kind: plan
        for plan in (
            BinomialPlan,
            ChainPlan,
            BinaryTreePlan,
            HypercubePlan,
            FlatPlan,
            ScatterAllgatherPlan,
        )
    }
)
"""What `multicast(kind=…)` may be: the name of a kind and its plan."""


def multicast(
    sources: int | Sequence[WorkerId] = 1,
    targets: int | Sequence[WorkerId] = 1,
    num_chunks: int = 64,
    *,
    kind: str = BinomialPlan.kind,
    num_leading: int = 0,
) -> MulticastPlan:
    """The plan that brings every chunk from the sources to each target exactly once.

    Every member calls this with the same arguments and reads its own sends and receives
    from what comes back. `multicast(1, 3, 8).num_steps` is 9: 8 chunks over links that
    carry one chunk a step, and ⌈log2 4⌉ − 1 steps more until the last target has it.
    Of `multicast(2, 6, 8)` it is 9 too, but after 4 steps the targets together hold
    every chunk: each source has a sub-group, which begins with another half.

    Args:
      sources: who holds every chunk; a number n stands for workers `w0` … `w(n−1)`.
      targets: who is to get them; a number stands for the workers after the sources.
      num_chunks: how many chunks there are.
      kind: a key of `PLAN_KINDS`, for each sub-group.
      num_leading: of several sources, every one sends so many chunks before it takes an
        order of its own.

    Raises:
      ConfigError: the kind is unknown, there is no source, no target, no chunk, a
        worker is named twice, or the kind cannot serve so many members.
    """
    if kind not in PLAN_KINDS:
        known = ", ".join(sorted(PLAN_KINDS))
        raise ConfigError(f"multicast kind {kind!r} is unknown: choose one of {known}")
    source_ids = _named(sources, first=0)
    target_ids = _named(targets, first=len(source_ids))
    if not source_ids or not target_ids:
        raise ConfigError(
            f"multicast from {list(source_ids)} to {list(target_ids)}: name at least "
            "one source and at least one target"
        )
    members = source_ids + target_ids
    if len(source_ids) == 1:
        return PLAN_KINDS[kind](members, num_chunks)
    subgroups = deal(source_ids, target_ids)
    plans = tuple(PLAN_KINDS[kind](group, num_chunks) for group in subgroups)
    return SubgroupPlan(members, num_chunks, plans, num_leading)


def _named(workers: int | Sequence[WorkerId], first: int) -> tuple[WorkerId, ...]:
    """The ids given, or so many ids counted from `first`."""
    if isinstance(workers, int):
        return tuple(WorkerId(f"w{first + index}") for index in range(workers))
    return tuple(workers)
