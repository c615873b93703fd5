"""Topologies: what is left of their links, how far apart workers are, what is wrong."""

import math

import pytest

from jscale.core.errors import ConfigError
from jscale.core.topology import Host, Leaf, Nic, Topology

NIC = Nic(100, 80)


def test_serving_leaves_a_share_of_each_direction():
    host = Host(("w0",), (Nic(100, 80, outbound_busy=0.25), NIC))
    assert host.free_outbound_bytes_per_s == 75 + 100
    assert host.free_inbound_bytes_per_s == 80 + 80
    assert host.outbound_busy == pytest.approx(0.125)


def test_workers_of_a_host_reach_each_other_at_its_local_rate():
    assert Host(("w0",), (NIC, Nic(60, 90))).local_rate_bytes_per_s == 80
    assert Host(("w0",), (NIC,), local_bytes_per_s=999).local_rate_bytes_per_s == 999


def test_workers_are_1_2_or_4_hops_apart():
    near = Host(("a", "b"), (NIC,), leaf="left")
    topology = Topology((near, Host(("c",), (NIC,), "left"), Host(("d",), (NIC,))))
    assert [topology.num_hops("a", other) for other in "bcd"] == [1, 2, 4]
    assert topology.host_of("b") is near


def test_a_uniform_topology_has_a_host_for_each_worker():
    topology = Topology.uniform(["w0", "w1"], 50, hop_latency_ns=7)
    assert [host.workers for host in topology.hosts] == [("w0",), ("w1",)]
    assert topology.num_hops("w0", "w1") == 2
    assert topology == Topology.uniform(["w0", "w1"], 50, hop_latency_ns=7)
    assert topology.leaf_named("") is None


def test_a_leaf_that_is_named_has_rates():
    leaf = Leaf("left", 10, 20)
    topology = Topology((Host(("w0",), (NIC,), "left"),), (leaf,))
    assert topology.leaf_named("left") is leaf


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Nic(0, 1), "outbound_bytes_per_s 0: give more than 0"),
        (lambda: Nic(1, math.inf), "inbound_bytes_per_s inf"),
        (lambda: Nic(1, math.nan), "inbound_bytes_per_s nan"),
        (lambda: Nic(1, 1, outbound_busy=1.0), "outbound_busy 1.0: give 0 to under 1"),
        (lambda: Nic(1, 1, inbound_busy=-0.1), "inbound_busy -0.1"),
        (lambda: Host((), (NIC,)), "0 workers and 1 NICs: give at least one"),
        (lambda: Host(("w0",), ()), "1 workers and 0 NICs"),
        (lambda: Host(("w0",), (NIC,), "", -1), "local_bytes_per_s -1"),
        (lambda: Leaf("x", 0, 1), "up_bytes_per_s 0"),
        (lambda: Topology.uniform("aab", 1), r"workers \['a'\] twice"),
        (lambda: Topology((), (Leaf("x", 1, 1),)), r"leaves \['x'\] that no host"),
        (lambda: Topology((), hop_latency_ns=-1), "hop_latency_ns -1: give 0 or more"),
        (lambda: Topology.uniform("ab", 1).host_of("c"), "c is on none of the 2 hosts"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
