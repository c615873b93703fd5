"""Repairs: each missing chunk once, and against every plan there could be."""

import itertools
import random
import statistics

import pytest

from jscale.core.errors import ConfigError
from jscale.core.topology import Topology
from jscale.plan.cost import arrivals, completion_times_ns
from jscale.plan.kinds import multicast
from jscale.plan.repair import likely_held, num_steps_left_min, repair
from tests.plan.optimum import fewest_steps

UNIT = 1e9  # a chunk of one byte takes one nanosecond


def held_at(plan, time_ns):
    """What targets hold so long after the start."""
    held = {target: set() for target in plan.targets}
    links = Topology.uniform(plan.members, UNIT)
    for arrival in arrivals(plan, links, 1):
        if arrival.time_ns <= time_ns:
            held[arrival.target].add(arrival.chunk)
    return held


def finish(plan, held):
    """Carries a plan out from what is held; steps until the last has every chunk."""
    held = {target: set(held.get(target, ())) for target in plan.targets}
    steps = 0
    for arrival in arrivals(plan, Topology.uniform(plan.members, UNIT), 1, held=held):
        assert arrival.chunk not in held[arrival.target], "sent twice"
        held[arrival.target].add(arrival.chunk)
        steps = arrival.time_ns
    assert all(len(chunks) == plan.num_chunks for chunks in held.values())
    return steps


def repaired(plan, held, lost=(), joined=(), holders=()):
    """The repair, on equal links."""
    members = [m for m in (*plan.members, *joined, *holders) if m not in lost]
    links = Topology.uniform(members, UNIT)
    held = {target: chunks for target, chunks in held.items() if target not in lost}
    return (
        repair(plan, links, lost=lost, joined=joined, holders=holders, held=held),
        held,
    )


def small_faults():
    """Every loss of a member, and every late one, at every step of small plans."""
    for num_sources, num_targets, num_chunks, kind in itertools.product(
        (1, 2), (1, 2, 3), (1, 2, 3), ("binomial", "chain")
    ):
        plan = multicast(num_sources, num_targets, num_chunks, kind=kind)
        changes = [{"lost": (member,)} for member in plan.members]
        changes += [{"joined": ("new",)}] if num_targets < 3 else []
        for time_ns, change in itertools.product(range(plan.num_steps), changes):
            if plan.source in change.get("lost", ()):
                change["holders"] = ("spare",)
            yield plan, held_at(plan, time_ns), change


def test_repairs_of_small_plans_against_every_plan_there_could_be():
    ratios = []
    for plan, held, change in small_faults():
        after, held = repaired(plan, held, **change)
        if after is not None:
            steps = finish(after, held)
            begin = [held.get(target, set()) for target in after.targets]
            best = fewest_steps(len(after.sources), begin, plan.num_chunks)
            bound = num_steps_left_min(
                after.sources, after.targets, plan.num_chunks, held
            )
            assert bound <= best <= steps
            ratios.append(steps / best)
    assert len(ratios) > 100
    assert statistics.mean(ratios) <= 1.01
    assert max(ratios) <= 1.5


@pytest.mark.parametrize("seed", range(40))
def test_repairs_after_random_faults_are_near_what_no_plan_can_beat(seed):
    rng = random.Random(seed)
    num_sources = rng.randint(1, 4)
    kind = rng.choice(["binomial", "chain"])
    plan = multicast(num_sources, rng.randint(1, 64 - num_sources), 64, kind=kind)
    held = held_at(plan, rng.randrange(plan.num_steps))
    lost = tuple(rng.sample(plan.members, rng.randint(0, plan.num_members // 2)))
    joined = tuple(f"new{n}" for n in range(rng.randint(0, 2)))
    after, held = repaired(plan, held, lost, joined, ("spare",))
    if after is None:
        assert not joined
        assert all(len(held[t]) == 64 for t in plan.targets if t not in lost)
        return
    assert set(after.members) == {*plan.members, *joined, "spare"} - {*lost}
    # What a plan that knows nothing of holdings takes for as many chunks as one lacks.
    num_missing = max(64 - len(held.get(target, ())) for target in after.targets)
    fresh = multicast(len(after.sources), len(after.targets), num_missing)
    assert finish(after, held) <= 1.25 * fresh.num_steps


def test_a_lost_source_is_followed_by_one_who_holds_every_chunk():
    plan = multicast(2, 6, 16)
    held = held_at(plan, 8)
    after, _ = repaired(plan, held, lost=("w0",))
    assert after.sources == ("w1",)
    after, _ = repaired(plan, held, lost=("w0", "w1"), holders=("w9",))
    assert after.sources == ("w9",)
    assert after.targets == plan.targets
    with pytest.raises(ConfigError, match="nobody who holds every chunk is left"):
        repaired(plan, held, lost=("w0", "w1"))


def test_a_target_that_is_complete_sends_and_one_cancelled_is_left_out():
    plan = multicast(1, 3, 12, kind="chain")
    after, held = repaired(plan, held_at(plan, 12), lost=("w0", "w3"))
    assert after.sources == ("w1",)
    assert after.targets == ("w2",)
    assert finish(after, held) == 1


def test_there_is_nothing_to_repair_when_nothing_is_missing():
    plan = multicast(1, 3, 12)
    assert repaired(plan, held_at(plan, plan.num_steps), lost=("w0",))[0] is None


def test_one_who_joins_late_does_not_hold_up_the_others():
    plan = multicast(1, 7, 64)
    after, held = repaired(plan, held_at(plan, 32), joined=("w8",))
    uniform = Topology.uniform(after.members, UNIT)
    times = completion_times_ns(after, uniform, 1, held=held)
    assert times.pop("w8") <= 64 + 3
    assert max(times.values()) <= 1.25 * 32 + 3


def test_what_a_target_likely_holds_is_what_its_plan_brought_first():
    plan = multicast(2, 6, 16)
    for time_ns in (0, 3, 9, plan.num_steps):
        held = held_at(plan, time_ns)
        counts = {target: len(chunks) for target, chunks in held.items()}
        assert likely_held(plan, counts) == held


def test_from_how_much_is_held_alone_one_who_joins_late_becomes_the_last():
    plan = multicast(1, 7, 64)
    held = held_at(plan, 32)
    counts = {target: len(chunks) for target, chunks in held.items()}
    uniform = Topology.uniform((*plan.members, "w8"), UNIT)
    after = repair(plan, uniform, joined=["w8"], held=likely_held(plan, counts))
    times = completion_times_ns(after, uniform, 1, held=held)
    assert times.pop("w8") <= 64 + 8
    assert max(times.values()) <= 32 + 8
    regardless = repair(plan, uniform, joined=["w8"])
    times = completion_times_ns(regardless, uniform, 1, held=held)
    assert max(t for target, t in times.items() if target != "w8") > 48


def test_for_many_chunks_holdings_count_by_samples():
    """Chains suit holdings of a chain: what is left of b + N − 2 steps is a few."""
    plan = multicast(1, 40, 1000, kind="chain")
    after, held = repaired(plan, held_at(plan, 1000), lost=("w30",))
    assert after.label == "2 × chain"
    assert finish(after, held) <= 40
