"""The cost model: against a dumb one, against the line, and what links do to it."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jscale.core.errors import ConfigError
from jscale.core.topology import Host, Leaf, Nic, Topology
from jscale.plan.cost import arrivals, completion_times_ns, coverage_time_ns
from jscale.plan.kinds import PLAN_KINDS, multicast

UNIT = 1e9  # a chunk of one byte takes one nanosecond


def dumb_arrivals(plan, topology, begin_with):
    """The same by looking, at each nanosecond, at every transfer there is."""
    hosts = [topology.host_of(member) for member in plan.members]
    lanes = {}
    for index, host in enumerate(hosts):
        nics = [
            [nic.free_outbound_bytes_per_s for nic in host.nics],
            [nic.free_inbound_bytes_per_s for nic in host.nics],
        ]
        first = hosts.index(host)
        rate = host.local_rate_bytes_per_s
        lanes["nic", index] = lanes["nic", first] if first < index else nics
        lanes["local", index] = [[rate], [rate]]
    left = sorted(
        (t.step, plan.index_of(member), plan.index_of(t.target), t.chunk)
        for member in plan.members
        for t in plan.sends(member)
    )
    held = [set(range(plan.num_chunks)) for _ in plan.sources]
    held += [set(begin_with.get(target, ())) for target in plan.targets]
    left = [send for send in left if send[3] not in held[send[2]]]
    ends, theres, leaf_free = {}, {}, {}
    for now in itertools.count():
        for out, out_rate, into, in_rate in ends.pop(now, ()):
            out.append(out_rate)
            into.append(in_rate)
        for target, chunk in theres.pop(now, ()):
            held[target].add(chunk)
            yield now, plan.members[target], chunk
        for send in list(left):
            _, source, target, chunk = send
            kind = "local" if hosts[source] == hosts[target] else "nic"
            out, into = lanes[kind, source][0], lanes[kind, target][1]
            if chunk in held[source] and out and into:
                left.remove(send)
                out_rate, in_rate = max(out), max(into)
                out.remove(out_rate)
                into.remove(in_rate)
                end = now + round(UNIT / min(out_rate, in_rate))
                if hosts[source].leaf != hosts[target].leaf:
                    for leaf in topology.leaves:
                        for index, rate in (
                            (source, leaf.up_bytes_per_s),
                            (target, leaf.down_bytes_per_s),
                        ):
                            if hosts[index].leaf == leaf.name:
                                free = max(
                                    now, leaf_free.get((leaf, index == source), 0)
                                )
                                free += round(UNIT / rate)
                                leaf_free[leaf, index == source] = free
                                end = max(end, free)
                hops = topology.num_hops(plan.members[source], plan.members[target])
                there = end + hops * topology.hop_latency_ns
                ends.setdefault(end, []).append((out, out_rate, into, in_rate))
                theres.setdefault(there, []).append((target, chunk))
        if not left and not theres:
            return


rates = st.sampled_from([UNIT, UNIT / 2, UNIT / 4])
nics = st.builds(Nic, rates, rates, st.sampled_from([0, 0.5]))


@st.composite
def cases(draw):
    num_sources, num_targets = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    kind = draw(st.sampled_from(sorted(set(PLAN_KINDS) - {"hypercube"})))
    plan = multicast(num_sources, num_targets, draw(st.integers(1, 9)), kind=kind)
    workers, hosts = list(draw(st.permutations(plan.members))), []
    while workers:
        here = [workers.pop() for _ in range(draw(st.integers(1, len(workers))))]
        ports = tuple(draw(st.lists(nics, min_size=1, max_size=2)))
        leaf, local = draw(st.sampled_from("xy")), draw(st.none() | rates)
        hosts.append(Host(tuple(here), ports, leaf, local))
    named = [Leaf(hosts[0].leaf, draw(rates), draw(rates))] * draw(st.integers(0, 1))
    chunks = st.sets(st.integers(0, plan.num_chunks - 1))
    begin_with = draw(st.dictionaries(st.sampled_from(plan.targets), chunks))
    topology = Topology(tuple(hosts), tuple(named), draw(st.integers(0, 2)))
    return plan, topology, begin_with


@given(cases())
@settings(deadline=None, max_examples=150)
def test_arrivals_are_those_of_a_dumb_simulation(case):
    plan, topology, held = case
    arrived = arrivals(plan, topology, 1, held=held)
    found = [(a.time_ns, a.target, a.chunk) for a in arrived]
    assert [time_ns for time_ns, *_ in found] == sorted(t for t, *_ in found)
    assert sorted(found) == sorted(dumb_arrivals(plan, topology, held))
    last_ns = {target: time_ns for time_ns, target, _ in found}
    assert completion_times_ns(plan, topology, 1, held=held) == {
        target: last_ns.get(target, 0) for target in plan.targets
    }


def last_ns(plan, topology):
    times = completion_times_ns(plan, topology, 1)
    assert set(times) == set(plan.targets)
    return max(times.values())


@pytest.mark.parametrize("kind", ["binomial", "chain"])
def test_on_equal_links_every_plan_takes_its_steps_without_any_barrier(kind):
    for num_sources, num_targets in itertools.product(range(1, 4), range(1, 24)):
        plan = multicast(num_sources, num_targets, 16, kind=kind)
        uniform = Topology.uniform(plan.members, UNIT)
        assert last_ns(plan, uniform) == plan.num_steps
        together = 16 / min(num_sources, num_targets)
        assert coverage_time_ns(plan, uniform, 1) == -(-together // 1)


def test_what_targets_hold_from_the_start_is_not_sent_and_counts_for_all_of_them():
    plan = multicast(1, 3, 12, kind="chain")
    uniform = Topology.uniform(plan.members, UNIT)
    first, all_but_last = frozenset(range(6)), frozenset(range(11))
    held = {"w1": first, "w2": all_but_last, "w3": first}
    assert completion_times_ns(plan, uniform, 1, held=held) == {
        "w1": 6,
        "w2": 7,
        "w3": 8,
    }
    assert coverage_time_ns(plan, uniform, 1, held=held) == 6
    held["w2"] = frozenset(range(12))
    assert coverage_time_ns(plan, uniform, 1, held=held) == 0
    assert completion_times_ns(plan, uniform, 1, held=held)["w2"] == 0


def test_latency_is_paid_once_for_each_member_passed_and_not_for_each_chunk():
    plan = multicast(1, 3, 100, kind="chain")
    assert last_ns(plan, Topology.uniform(plan.members, UNIT, hop_latency_ns=5)) == (
        102 + 3 * 2 * 5
    )


def test_what_serving_leaves_of_the_sources_link_is_what_a_multicast_gets():
    plan = multicast(1, 1, 12)
    target = Host(("w1",), (Nic(UNIT, UNIT),))
    for busy, time_ns in ((0, 12), (0.5, 24), (0.75, 48)):
        source = Host(("w0",), (Nic(UNIT, UNIT, outbound_busy=busy),))
        assert last_ns(plan, Topology((source, target))) == time_ns
    # Full duplex: what serving receives does not matter to a source.
    source = Host(("w0",), (Nic(UNIT, UNIT, inbound_busy=0.75),))
    assert last_ns(plan, Topology((source, target))) == 12


def test_several_nics_carry_several_chunks_at_a_time():
    plan = multicast(1, 1, 12)
    for num_nics in (1, 2, 4):
        nics = (Nic(UNIT, UNIT),) * num_nics
        hosts = tuple(Host((member,), nics) for member in plan.members)
        assert last_ns(plan, Topology(hosts)) == 12 / num_nics


def test_a_slow_last_member_of_a_chain_is_slow_alone():
    plan = multicast(1, 3, 12, kind="chain")
    nics = [Nic(UNIT, UNIT)] * 3 + [Nic(UNIT / 4, UNIT / 4)]
    hosts = tuple(Host((m,), (nic,)) for m, nic in zip(plan.members, nics, strict=True))
    assert completion_times_ns(plan, Topology(hosts), 1) == {
        "w1": 12,
        "w2": 13,
        "w3": 2 + 4 * 12,
    }


def test_a_narrow_link_between_leaves_bounds_what_crosses_it():
    plan = multicast(1, 3, 12, kind="flat")
    nic = (Nic(4 * UNIT, UNIT),)
    hosts = tuple(
        Host((member,), nic, leaf)
        for member, leaf in zip(plan.members, "xyyy", strict=True)
    )
    assert last_ns(plan, Topology(hosts)) == 12 * 3
    narrow = Topology(hosts, (Leaf("y", UNIT, UNIT / 2),))
    assert last_ns(plan, narrow) == 12 * 3 * 2


def test_a_member_without_a_host_is_named():
    with pytest.raises(ConfigError, match="w1 is on none of the 1 hosts"):
        completion_times_ns(multicast(1, 1, 4), Topology.uniform(["w0"], 1), 1)
