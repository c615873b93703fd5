"""Several multicasts over the same links: each gets its share, none waits for ever."""

import random

import pytest

from jscale.core.topology import Host, Nic, Topology
from jscale.plan.arrangement import multicast_over
from jscale.plan.cost import completion_times_ns
from jscale.plan.fair_share import completion_times_together_ns, links_left
from jscale.plan.kinds import multicast

UNIT = 1e9  # a chunk of one byte takes one nanosecond


def cluster(num_workers, **busy):
    return Topology(
        tuple(
            Host((name,), (Nic(UNIT, UNIT, outbound_busy=busy.get(name, 0)),))
            for name in names(0, num_workers)
        )
    )


def names(start, stop):
    return [f"w{n}" for n in range(start, stop)]


def last_ns(plan, topology, size=1):
    return max(completion_times_ns(plan, topology, size).values())


def lasts_ns(plans, topology, sizes=None, starts_ns=None):
    sizes = sizes or [1] * len(plans)
    found = completion_times_together_ns(plans, topology, sizes, starts_ns=starts_ns)
    assert [set(times) for times in found] == [set(plan.targets) for plan in plans]
    return [max(times.values()) for times in found]


@pytest.mark.parametrize("kind", ["binomial", "chain", "tree", "flat", "scatter"])
def test_alone_a_plan_takes_what_the_cost_model_says(kind):
    for num_sources, num_targets, num_chunks in ((1, 1, 5), (1, 6, 16), (3, 9, 20)):
        plan = multicast(num_sources, num_targets, num_chunks, kind=kind)
        uniform = Topology.uniform(plan.members, UNIT)
        assert lasts_ns([plan], uniform) == [last_ns(plan, uniform)]


def test_alone_it_does_so_between_workers_of_a_host_too():
    hosts = tuple(
        Host((f"a{n}", f"b{n}"), (Nic(UNIT, UNIT),), local_bytes_per_s=4 * UNIT)
        for n in range(3)
    )
    topology = Topology(hosts)
    plan = multicast(["a0"], ["b0", "a1", "b1", "a2", "b2"], 12, kind="chain")
    assert lasts_ns([plan], topology, [4]) == [last_ns(plan, topology, 4)]


@pytest.mark.parametrize("kind", ["binomial", "chain"])
@pytest.mark.parametrize("num_plans", [2, 3])
def test_plans_that_overlap_wholly_take_as_many_times_as_long_and_no_longer(
    kind, num_plans
):
    plans = [multicast(1, 7, 64, kind=kind)] * num_plans
    topology = cluster(8)
    alone = last_ns(plans[0], topology)
    for together in lasts_ns(plans, topology):
        assert alone < together <= 1.02 * num_plans * alone


@pytest.mark.parametrize("seed", range(20))
def test_no_plan_is_starved_by_another(seed):
    rng = random.Random(seed)
    topology = cluster(24)
    plans, sizes = [], []
    for _ in range(2):
        members = rng.sample(names(0, 24), rng.randint(2, 24))
        kind = rng.choice(["binomial", "chain"])
        num_sources = rng.randint(1, min(3, len(members) - 1))
        sources, targets = members[:num_sources], members[num_sources:]
        plans.append(multicast(sources, targets, rng.choice([8, 64, 200]), kind=kind))
        sizes.append(rng.choice([1000, 4000]))
    starts_ns = [0, rng.choice([0, 5000, 50_000])]
    found = lasts_ns(plans, topology, sizes, starts_ns)
    for plan, size, together in zip(plans, sizes, found, strict=True):
        alone = last_ns(plan, topology, size)
        assert together <= 2.5 * alone
        assert together >= 0.99 * alone


def test_a_short_one_is_not_held_up_by_a_long_one_that_came_first():
    long, short = multicast(1, 7, 1000), multicast(1, 7, 32)
    topology = cluster(8)
    _, together = lasts_ns([long, short], topology, starts_ns=[0, 400])
    assert together <= 2.1 * last_ns(short, topology)


def test_one_more_multicast_is_left_its_share_of_each_direction():
    chain = multicast(["w0"], ["w1", "w2"], 8, kind="chain")
    left = links_left(cluster(4, w0=0.5), [chain, chain])
    out = [left.host_of(name).free_outbound_bytes_per_s for name in names(0, 4)]
    into = [left.host_of(name).free_inbound_bytes_per_s for name in names(0, 4)]
    assert out == pytest.approx([UNIT / 6, UNIT / 3, UNIT, UNIT])
    assert into == pytest.approx([UNIT, UNIT / 3, UNIT / 3, UNIT])
    assert links_left(cluster(4), []) == cluster(4)


def test_sources_of_another_multicast_are_spared_and_neither_is_slower_for_it():
    topology = cluster(10)
    first = multicast(["w0"], names(2, 6), 64)
    left = links_left(topology, [first])
    second = multicast_over(left, ["w0", "w1"], names(6, 10), 64)
    assert not list(second.sends("w0"))
    assert lasts_ns([first, second], topology) == [
        last_ns(first, topology),
        last_ns(second, topology),
    ]
    regardless = multicast(["w0"], names(6, 10), 64)
    assert min(lasts_ns([first, regardless], topology)) >= 1.9 * last_ns(
        first, topology
    )
