"""A multicast that goes on after a change: somebody was lost, or came late."""

import collections
import itertools
from collections.abc import Collection, Mapping, Sequence

from jscale.core.errors import ConfigError
from jscale.core.ids import WorkerId
from jscale.core.topology import Topology
from jscale.plan.arrangement import multicast_over
from jscale.plan.cost import HELD_NOTHING, Held
from jscale.plan.multicast_plan import MulticastPlan


def repair(
    plan: MulticastPlan,
    topology: Topology,
    *,
    lost: Collection[WorkerId] = (),
    joined: Sequence[WorkerId] = (),
    holders: Sequence[WorkerId] = (),
    held: Held = HELD_NOTHING,
    kind: str | None = None,
    num_leading: int = 0,
) -> MulticastPlan | None:
    """The plan that brings what is missing now to everyone left; None: nothing is.

    It is a fresh arrangement of all chunks: those who hold every chunk by now send, and
    the others are dealt out to them anew, in the order in which they were. Members tell
    their peers what they hold before these send, and what a target holds is left out,
    so that no chunk goes twice to the same member. As sends are ordered, not timed, the
    next one takes the place of one that is left out. So the description stays as small
    as that of any plan, and nobody need know who holds which chunk: `held`, where it is
    known, only helps to choose between a binomial plan and chains.

    A schedule over exactly what is missing can hardly do better. After random faults at
    random moments, the last of up to 64 members was complete in 1.01 times the steps
    of a fresh plan for as many chunks as one lacks, or fewer, on average; and of 64
    chunks or more in 1.00 to 1.21 times `num_steps_left_min` (`bench/plans.py`).

    Args:
      plan: what was under way.
      topology: the links of everyone left.
      lost: members that are gone, targets that are not to get it any more, and sources
        that are not to send.
      joined: targets that are new.
      holders: others who hold every chunk, and can take over from sources.
      held: what targets hold by now, as far as it is known.
      kind: a key of `PLAN_KINDS`; None: the faster one of binomial and chain.
      num_leading: as in `multicast`.

    Raises:
      ConfigError: nobody who holds every chunk is left; the topology lacks a member.
    """
    gone = frozenset(lost)
    known = (*plan.sources, *holders, *plan.targets, *joined)
    left = [member for member in dict.fromkeys(known) if member not in gone]
    first = {*plan.sources, *holders}
    complete = {w for w in left if len(held.get(w, ())) == plan.num_chunks} | first
    sources = [member for member in left if member in complete]
    targets = [member for member in left if member not in complete]
    if not targets:
        return None
    if not sources:
        raise ConfigError(
            f"multicast to {targets}: nobody who holds every chunk is left, name one "
            "in holders"
        )
    return multicast_over(
        topology,
        sources,
        targets,
        plan.num_chunks,
        kind=kind,
        num_leading=num_leading,
        held=held,
    )


def likely_held(plan: MulticastPlan, num_held: Mapping[WorkerId, int]) -> Held:
    """What targets hold by now, from how many chunks they say: the first by plan.

    Enough to choose a repair by, where nobody knows more. It matters when somebody
    joins late: in a binomial plan others would wait for what it is to pass on to them,
    which it gets after all that they hold already; in a chain it is the last.

    Args:
      plan: by which they received them.
      num_held: how many chunks each holds; who is not named holds none.
    """
    held = {}
    for target in plan.targets:
        received = plan.receives_of(plan.index_of(target))
        first = itertools.islice(received, num_held.get(target, 0))
        held[target] = {chunk for _, _, chunk in first}
    return held


def num_steps_left_min(
    sources: Sequence[WorkerId],
    targets: Sequence[WorkerId],
    num_chunks: int,
    held: Held,
) -> int:
    """Steps that no plan can do without, from what targets hold by now.

    A target receives one chunk a step. In each step those who hold a chunk can at most
    double. And m chunks that k members alone hold leave these one after the other, k a
    step: one of them has left at most once and what is over of k ⌈m / k⌉ sends by then.

    Args:
      sources: who holds every chunk; at least one.
      targets: who is to hold every chunk.
      num_chunks: how many there are.
      held: what targets hold.
    """
    num_missing = [num_chunks - len(held.get(target, ())) for target in targets]
    wanted: dict[tuple[WorkerId, ...], list[int]] = collections.defaultdict(list)
    for chunk in range(num_chunks):
        others = [target for target in targets if chunk in held.get(target, ())]
        if num_wanting := len(targets) - len(others):
            wanted[*sources, *others].append(num_wanting)
    least = max(num_missing, default=0)
    for holders, numbers in wanted.items():
        num_holders = len(holders)
        steps = -(-len(numbers) // num_holders)
        spare_sends = steps * num_holders - len(numbers)
        reached = num_holders + min(num_holders, spare_sends + 1)
        while reached < num_holders + min(numbers):
            reached, steps = 2 * reached, steps + 1
        least = max(least, steps)
    return least
