"""Slow members, found by what members of modelled multicasts report."""

import random

import pytest

from jscale.core.errors import ConfigError
from jscale.core.topology import Host, Nic, Topology
from jscale.core.units import MIB, NS_PER_MS, NS_PER_S
from jscale.plan.arrangement import multicast_over
from jscale.plan.cost import arrivals, completion_times_ns
from jscale.plan.kinds import multicast
from jscale.plan.stragglers import StragglerPolicy, StragglerWatch, with_rates

RATE = 50e6
SIZE_BYTES, NUM_CHUNKS = 256 * MIB, 256
CHUNK_SIZE_BYTES = SIZE_BYTES // NUM_CHUNKS
REPORT_EVERY_NS = 200 * NS_PER_MS


def run(plan, links, watch, start_ns=0, held=None):
    """Reports to the watch until somebody is found: who, when, what is held then."""
    held = {t: set((held or {}).get(t, ())) for t in plan.targets}
    told_ns = dict.fromkeys(plan.targets, 0)
    begin_with = {target: set(chunks) for target, chunks in held.items()}
    for arrival in arrivals(plan, links, CHUNK_SIZE_BYTES, held=begin_with):
        target, time_ns = arrival.target, arrival.time_ns
        held[target].add(arrival.chunk)
        if time_ns - told_ns[target] >= REPORT_EVERY_NS:
            told_ns[target] = time_ns
            held_bytes = len(held[target]) * CHUNK_SIZE_BYTES
            if found := watch.reported(target, held_bytes, start_ns + time_ns):
                return found, start_ns + time_ns, held
    return frozenset(), None, held


def cluster(plan, **rates):
    return with_rates(Topology.uniform(plan.members, RATE), rates)


@pytest.mark.parametrize("kind", ["binomial", "chain"])
@pytest.mark.parametrize("seed", range(8))
def test_a_slow_member_is_found_and_costs_the_others_little(kind, seed):
    rng = random.Random(f"{kind} {seed}")
    num_sources, num_targets = rng.randint(1, 3), rng.randint(7, 20)
    plan = multicast(num_sources, num_targets, NUM_CHUNKS, kind=kind)
    slow = rng.choice(plan.targets)
    links = cluster(plan, **{slow: RATE / 4})
    watch = StragglerWatch(plan, SIZE_BYTES, 0, usual_bytes_per_s=RATE)
    found, now_ns, held = run(plan, links, watch)
    assert found == {slow}
    measured = with_rates(cluster(plan), watch.rates_bytes_per_s)
    after = multicast_over(measured, plan.sources, plan.targets, NUM_CHUNKS, held=held)
    times_ns = dict(completion_times_ns(after, links, CHUNK_SIZE_BYTES, held=held))
    undisturbed_ns = completion_times_ns(plan, cluster(plan), CHUNK_SIZE_BYTES)
    del times_ns[slow]
    assert now_ns + max(times_ns.values()) <= 1.25 * max(undisturbed_ns.values())
    # It is not found again, nor is anyone else, by the plan that follows.
    watch.follow(after, now_ns)
    assert run(after, links, watch, now_ns, held)[0] == frozenset()


def test_without_the_usual_rate_the_others_are_the_measure():
    plan = multicast(1, 7, NUM_CHUNKS)
    watch = StragglerWatch(plan, SIZE_BYTES, 0)
    assert run(plan, cluster(plan, w7=RATE / 4), watch)[0] == {"w7"}
    # Of a chain's first member all are as slow: who is to say what is usual?
    plan = multicast(1, 7, NUM_CHUNKS, kind="chain")
    watch = StragglerWatch(plan, SIZE_BYTES, 0)
    assert run(plan, cluster(plan, w1=RATE / 4), watch)[0] == frozenset()


@pytest.mark.parametrize("kind", ["binomial", "chain", "tree", "flat"])
def test_on_equal_links_nobody_is_slow(kind):
    for num_sources, num_targets in ((1, 1), (1, 6), (2, 9), (1, 12)):
        plan = multicast(num_sources, num_targets, NUM_CHUNKS, kind=kind)
        watch = StragglerWatch(plan, SIZE_BYTES, 0)
        assert run(plan, cluster(plan), watch)[0] == frozenset()


def test_a_little_slower_is_not_slow():
    plan = multicast(1, 7, NUM_CHUNKS)
    links = cluster(plan, w4=0.7 * RATE)
    watch = StragglerWatch(plan, SIZE_BYTES, 0, usual_bytes_per_s=RATE)
    assert run(plan, links, watch)[0] == frozenset()


def test_two_slow_members_are_found_one_after_the_other_and_then_no_more():
    plan = multicast(1, 9, NUM_CHUNKS, kind="chain")
    rates = {"w2": RATE / 4, "w5": RATE / 8, "w8": RATE / 3}
    links, now_ns, held = cluster(plan, **rates), 0, None
    watch = StragglerWatch(plan, SIZE_BYTES, 0, usual_bytes_per_s=RATE)
    found = []
    while now_ns is not None:
        names, now_ns, held = run(plan, links, watch, now_ns, held)
        found += sorted(names)
        if names:
            measured = with_rates(cluster(plan), watch.rates_bytes_per_s)
            plan = multicast_over(
                measured, plan.sources, plan.targets, NUM_CHUNKS, held=held
            )
            watch.follow(plan, now_ns)
    assert len(found) == StragglerPolicy().num_found_max
    assert set(found) < set(rates)


def test_near_the_end_nobody_is_found():
    plan = multicast(1, 3, NUM_CHUNKS, kind="chain")
    watch = StragglerWatch(plan, SIZE_BYTES, 0, usual_bytes_per_s=RATE)
    for now_ns in range(0, 10 * NS_PER_S, REPORT_EVERY_NS):
        for target in plan.targets:
            held_bytes = (0.8 if target == "w2" else 1) * SIZE_BYTES
            assert not watch.reported(target, int(held_bytes), now_ns)


def test_reports_of_strangers_are_ignored():
    plan = multicast(1, 3, NUM_CHUNKS)
    watch = StragglerWatch(plan, SIZE_BYTES, 0)
    assert watch.reported("w9", 5, 10 * NS_PER_S) == frozenset()


def test_rates_of_slow_members_go_into_the_topology():
    nic = Nic(RATE, RATE)
    hosts = (Host(("a", "b"), (nic, nic), "x"), Host(("c",), (nic,)))
    slow = with_rates(Topology(hosts), {"b": 7.0})
    assert slow.host_of("a").nics == (Nic(7.0, 7.0),)
    assert slow.host_of("a").leaf == "x"
    assert slow.host_of("c") == hosts[1]


@pytest.mark.parametrize(
    ("field", "value"),
    [("rate_share_max", 1.5), ("missing_share_min", -1), ("window_ns", 0)],
)
def test_impossible_policies_are_refused(field, value):
    with pytest.raises(ConfigError, match=field):
        StragglerPolicy(**{field: value})
