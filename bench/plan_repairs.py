"""How good repairs are: random faults at random moments of multicasts under way."""

import random
import statistics
from collections.abc import Sequence

from jscale.core.ids import WorkerId
from jscale.core.topology import Topology
from jscale.core.units import NS_PER_S
from jscale.plan.cost import arrivals, completion_times_ns
from jscale.plan.kinds import multicast
from jscale.plan.multicast_plan import MulticastPlan
from jscale.plan.repair import num_steps_left_min, repair

NUM_MEMBERS_MAX = 64
FAULTS = ("target lost", "source lost", "joined late", "third cancelled")
Holdings = dict[WorkerId, set[int]]


def print_repairs(num_tried: int, seed: int = 0) -> None:
    """Steps until the last target is complete, against two measures."""
    print(
        f"\nrepairs of multicasts from 1 to 4 sources to up to {NUM_MEMBERS_MAX} "
        f"members, {num_tried} faults each: mean (worst)\n"
        f"{'':>33}{'x bound for any plan':>24}{'x fresh plan':>16}"
    )
    for num_chunks in (16, 64, 256):
        for kind in ("binomial", "chain"):
            for fault in FAULTS:
                rng = random.Random(f"{seed} {num_chunks} {kind} {fault}")
                found = [
                    _ratios(rng, num_chunks, kind, fault) for _ in range(num_tried)
                ]
                ratios = [each for each in found if each is not None]
                cells = (
                    f"{statistics.mean(column):.3f} ({max(column):.2f})"
                    for column in zip(*ratios, strict=True)
                )
                name = f"{num_chunks} chunks, {kind}, {fault}"
                print(f"{name:>38}" + "".join(f"{cell:>18}" for cell in cells))


def _ratios(
    rng: random.Random, num_chunks: int, kind: str, fault: str
) -> tuple[float, float] | None:
    """Of the repair after one fault; None: nothing was missing any more."""
    num_sources = rng.randint(1, 4)
    num_targets = rng.randint(1, NUM_MEMBERS_MAX - num_sources)
    plan = multicast(num_sources, num_targets, num_chunks, kind=kind)
    held = _held_at(plan, rng.randrange(1, plan.num_steps))
    lost, joined = _change(rng, plan, fault)
    holders = [WorkerId("spare")] if {*plan.sources} <= {*lost} else []
    left = [w for w in (*plan.members, *joined, *holders) if w not in lost]
    held = {target: chunks for target, chunks in held.items() if target not in lost}
    links = Topology.uniform(left, NS_PER_S)
    after = repair(plan, links, lost=lost, joined=joined, holders=holders, held=held)
    if after is None:
        return None
    steps = max(completion_times_ns(after, links, 1, held=held).values())
    bound = num_steps_left_min(after.sources, after.targets, num_chunks, held)
    # The best plan for as many chunks as the one who lacks most lacks.
    num_missing = max(num_chunks - len(held.get(t, ())) for t in after.targets)
    fresh = multicast(len(after.sources), len(after.targets), num_missing)
    return steps / bound, steps / fresh.num_steps


def _held_at(plan: MulticastPlan, time_ns: int) -> Holdings:
    """What targets hold so many steps after the start, on equal links."""
    held: Holdings = {target: set() for target in plan.targets}
    for arrival in arrivals(plan, Topology.uniform(plan.members, NS_PER_S), 1):
        if arrival.time_ns > time_ns:
            break
        held[arrival.target].add(arrival.chunk)
    return held


def _change(
    rng: random.Random, plan: MulticastPlan, fault: str
) -> tuple[Sequence[WorkerId], Sequence[WorkerId]]:
    """Who is lost, and who joins."""
    targets, num_targets = plan.targets, len(plan.targets)
    match fault:
        case "target lost":
            return rng.sample(targets, min(num_targets - 1, rng.randint(1, 3))), ()
        case "source lost":
            return [rng.choice(plan.sources)], ()
        case "third cancelled":
            return rng.sample(targets, num_targets // 3), ()
    return (), [WorkerId(f"new{n}") for n in range(rng.randint(1, 4))]
