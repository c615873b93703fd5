"""What the multicast benchmark measures, as members tell each other."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jscale.core.ids import WorkerId
from jscale.plan.kinds import PLAN_KINDS
from jscale.plan.multicast_plan import MulticastPlan
from jscale.plan.subgroups import SubgroupPlan

REPORT_EVERY_S = 0.2
"""As workers of a cluster do."""

UNDISTURBED = "undisturbed"


@dataclasses.dataclass(frozen=True)
class Case:
    """One multicast.

    Args:
      plan: kind of plan, or gloo.
      num_members: sources included.
      size_bytes: of the model.
      chunk_size_bytes: of the chunks.
      num_sources: the first so many members hold the model.
      kill: a rank, and the share of the model at which its process is killed.
      join: the last member joins when the others hold this share on average.
      slow: a rank, and the rate of its link in bytes/s.
      is_slow_known: the plan is made with knowledge of it.
    """

    plan: str
    num_members: int
    size_bytes: int
    chunk_size_bytes: int
    num_sources: int = 1
    kill: tuple[int, float] | None = None
    join: float | None = None
    slow: tuple[int, float] | None = None
    is_slow_known: bool = False

    @property
    def odd_rank(self) -> int | None:
        """Who is killed, slow or late: not one of those whose time is compared."""
        if self.join is not None:
            return self.num_members - 1
        odd = self.kill or self.slow
        return odd[0] if odd else None

    @property
    def label(self) -> str:
        """What is done to whom."""
        if self.kill:
            return f"kill w{self.kill[0]} at {self.kill[1]:g}"
        if self.join is not None:
            return f"join at {self.join:g}"
        if self.slow:
            how = "known" if self.is_slow_known else "found out"
            return f"slow w{self.slow[0]}, {how}"
        return UNDISTURBED


@dataclasses.dataclass(frozen=True)
class Result:
    """How a case went.

    Attributes:
      seconds: until the last target was complete, whoever it is.
      others_seconds: the same without the one that is killed, slow or late.
      own_seconds: how long the one that joined late took.
      coverage_seconds: until all targets together held the model.
      peak_memory_bytes: of the largest process.
      num_plans: 1, and one more for each change.
    """

    seconds: float
    others_seconds: float
    own_seconds: float
    coverage_seconds: float
    peak_memory_bytes: int
    num_plans: int = 1


def name(rank: int) -> WorkerId:
    """The worker of a rank."""
    return WorkerId(f"w{rank}")


def described(plan: MulticastPlan) -> dict[str, Any]:
    """All that a member needs to work out its part."""
    groups = plan.subgroups if isinstance(plan, SubgroupPlan) else (plan,)
    return {
        "kind": groups[0].kind,
        "members": plan.members,
        "groups": [group.members for group in groups],
    }


def plan_of(
    kind: str,
    members: Sequence[WorkerId],
    groups: Sequence[Sequence[WorkerId]],
    num_chunks: int,
) -> MulticastPlan:
    """The plan that was described."""
    plans = tuple(PLAN_KINDS[kind](tuple(group), num_chunks) for group in groups)
    if len(members) == len(groups[0]):
        return plans[0]
    return SubgroupPlan(tuple(members), num_chunks, plans)
