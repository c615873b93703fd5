"""The kinds of multicast plan, and the one way to ask for a plan."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from jscale.core.errors import ConfigError
from jscale.core.ids import WorkerId
from jscale.plan.binary_tree import BinaryTreePlan
from jscale.plan.binomial import BinomialPlan
from jscale.plan.chain import ChainPlan
from jscale.plan.hypercube import HypercubePlan
from jscale.plan.multicast_plan import MulticastPlan

PLAN_KINDS: Mapping[str, type[MulticastPlan]] = MappingProxyType(
    {
        plan.kind: plan
        for plan in (BinomialPlan, ChainPlan, BinaryTreePlan, HypercubePlan)
    }
)
"""What `multicast(kind=…)` may be: the name of a kind and its plan."""


def multicast(
    sources: int | Sequence[WorkerId] = 1,
    targets: int | Sequence[WorkerId] = 1,
    num_chunks: int = 64,
    *,
    kind: str = BinomialPlan.kind,
) -> MulticastPlan:
    """The plan that brings every chunk from the source to each target exactly once.

    Every member calls this with the same arguments and reads its own sends and receives
    from what comes back. `multicast(1, 3, 8).num_steps` is 9: 8 chunks over links that
    carry one chunk a step, and ⌈log2 4⌉ − 1 steps more until the last target has it.

    Args:
      sources: who holds every chunk; a number n stands for workers `w0` … `w(n−1)`.
      targets: who is to get them; a number stands for the workers after the sources.
      num_chunks: how many chunks there are.
      kind: a key of `PLAN_KINDS`.

    Raises:
      ConfigError: the kind is unknown, there is not exactly one source, no target, no
        chunk, a worker is named twice, or the kind cannot serve so many members.
    """
    if kind not in PLAN_KINDS:
        known = ", ".join(sorted(PLAN_KINDS))
        raise ConfigError(f"multicast kind {kind!r} is unknown: choose one of {known}")
    source_ids = _named(sources, first=0)
    target_ids = _named(targets, first=len(source_ids))
    if len(source_ids) != 1:
        raise ConfigError(
            f"multicast from {len(source_ids)} sources: exactly one is supported, "
            "give each source a plan and targets of its own"
        )
    return PLAN_KINDS[kind](source_ids + target_ids, num_chunks)


def _named(workers: int | Sequence[WorkerId], first: int) -> tuple[WorkerId, ...]:
    """The ids given, or so many ids counted from `first`."""
    if isinstance(workers, int):
        return tuple(WorkerId(f"w{first + index}") for index in range(workers))
    return tuple(workers)
