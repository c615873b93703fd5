"""Arrangements: against every other one, and what links make of them."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jscale.core.errors import ConfigError
from jscale.core.topology import Host, Leaf, Nic, Topology
from jscale.plan.arrangement import multicast_over
from jscale.plan.cost import completion_times_ns
from jscale.plan.kinds import multicast
from tests.plan.delivery import deliver

UNIT = 1e9
FAST, SLOW = Nic(UNIT, UNIT), Nic(UNIT / 4, UNIT / 4)


def times_ns(plan, topology):
    return sorted(completion_times_ns(plan, topology, 1).values())


def cluster(*rates, leaves=None):
    """Hosts w0, w1, … of these rates, under these leaves."""
    return Topology(
        tuple(
            Host((f"w{n}",), (Nic(rate, rate),), leaves[n] if leaves else "")
            for n, rate in enumerate(rates)
        )
    )


def names(start, stop):
    return [f"w{n}" for n in range(start, stop)]


def test_paper_no_order_of_a_chain_beats_the_decreasing_one():
    """BlitzScale, arXiv 2412.17246: chains in decreasing order of bandwidth."""
    for rates in itertools.product((1, 2, 4), repeat=3):
        topology = cluster(UNIT, *(UNIT / rate for rate in rates))
        plan = multicast_over(topology, ["w0"], names(1, 4), 6, kind="chain")
        every = [
            times_ns(multicast(["w0"], order, 6, kind="chain"), topology)
            for order in itertools.permutations(names(1, 4))
        ]
        ours = times_ns(plan, topology)
        assert ours[-1] == min(times[-1] for times in every)
        assert sum(ours) == min(map(sum, every))


def test_on_equal_links_it_is_the_binomial_plan_of_fewest_steps():
    topology = cluster(*[UNIT] * 12)
    plan = multicast_over(topology, names(0, 3), names(3, 12), 16)
    assert plan.label == "3 × binomial"
    assert plan.num_steps == plan.num_steps_min
    assert multicast_over(topology, ["w0"], names(1, 12), 16).kind == "binomial"


def test_slow_targets_make_it_a_chain_that_leaves_the_others_alone():
    topology = cluster(*[UNIT] * 6, UNIT / 4, UNIT)
    plan = multicast_over(topology, ["w0"], names(1, 8), 64)
    assert plan.kind == "chain"
    assert plan.members[-1] == "w6"
    assert times_ns(plan, topology)[-2] <= 64 + 6


def test_a_source_that_serves_stands_by():
    hosts = [Host((f"w{n}",), (FAST,)) for n in range(1, 8)]
    busy = Host(("w0",), (Nic(UNIT, UNIT, outbound_busy=0.5),))
    topology = Topology((busy, *hosts))
    plan = multicast_over(topology, ["w0", "w1"], names(2, 8), 32)
    assert plan.sources == ("w1", "w0")
    assert not list(plan.sends("w0"))
    naive = multicast(["w0", "w1"], names(2, 8), 32)
    assert times_ns(naive, topology)[-1] >= 1.5 * times_ns(plan, topology)[-1]


def test_a_chain_crosses_each_narrow_boundary_once():
    leaves = "xyzxyzxyzx"
    topology = cluster(*[UNIT] * 10, leaves=leaves)
    narrow = tuple(Leaf(name, UNIT, UNIT) for name in "xyz")
    topology = Topology(topology.hosts, narrow)
    plan = multicast_over(topology, ["w0"], names(1, 10), 64)
    crossed = "".join(leaves[int(member[1:])] for member in plan.members)
    assert crossed == "xxxxyyyzzz"
    mixed = times_ns(multicast(1, 9, 64), topology)[-1]
    assert mixed > 1.4 * times_ns(plan, topology)[-1]


def test_a_source_in_each_leaf_serves_its_own():
    topology = cluster(*[UNIT] * 8, leaves="xyxyxyxy")
    narrow = Topology(topology.hosts, (Leaf("x", UNIT / 8, UNIT / 8),))
    plan = multicast_over(narrow, ["w0", "w1"], names(2, 8), 16)
    assert [group.members for group in plan.subgroups] == [
        ("w0", "w2", "w4", "w6"),
        ("w1", "w3", "w5", "w7"),
    ]


def test_workers_of_a_host_follow_one_another():
    hosts = tuple(
        Host((f"a{n}", f"b{n}"), (FAST,), local_bytes_per_s=8 * UNIT) for n in range(4)
    )
    workers = [name for host in hosts for name in host.workers]
    targets = [*workers[1::2], *workers[2::2]]
    plan = multicast_over(Topology(hosts), ["a0"], targets, 32)
    assert plan.kind == "chain"
    assert plan.members == ("a0", "b0", "b1", "a1", "b2", "a2", "b3", "a3")


rates = st.sampled_from([UNIT, UNIT / 2, UNIT / 3])
nics = st.builds(Nic, rates, rates, st.sampled_from([0, 0, 0.5]))


@given(
    st.lists(st.tuples(nics, st.sampled_from("xy")), min_size=2, max_size=12), st.data()
)
@settings(deadline=None, max_examples=40)
def test_whatever_the_links_every_target_gets_every_chunk_once(links, data):
    hosts = tuple(Host((f"w{n}",), (nic,), leaf) for n, (nic, leaf) in enumerate(links))
    topology = Topology(hosts, (Leaf(links[0][1], UNIT, UNIT),))
    num_sources = data.draw(st.integers(1, len(hosts) - 1))
    num_chunks = data.draw(st.integers(1, 12))
    sources, targets = names(0, num_sources), names(num_sources, len(hosts))
    plan = multicast_over(
        topology, sources, targets, num_chunks, num_leading=num_chunks // 3
    )
    deliver(plan)
    assert set(plan.sources) == set(sources)
    assert sorted(plan.targets) == sorted(targets)
    assert plan == multicast_over(
        topology, sources, targets, num_chunks, num_leading=num_chunks // 3
    )


@pytest.mark.parametrize(
    ("sources", "targets", "kind", "message"),
    [
        ([], ["w1"], None, "from no source"),
        (["w0"], [], None, "to no target"),
        (["w0"], ["w1"], "star", "'star' is unknown: choose one of binomial"),
        (["w0"], ["w7"], None, "w7 is on none of the 2 hosts"),
        (["w0"], ["w0"], None, "named twice"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_a_reason(
    sources, targets, kind, message
):
    with pytest.raises(ConfigError, match=message):
        multicast_over(cluster(UNIT, UNIT), sources, targets, 4, kind=kind)
