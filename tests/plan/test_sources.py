"""Sources: the fast and idle ones, one of each host, and never none."""

import pytest

from jscale.core.errors import ConfigError
from jscale.core.topology import Host, Nic, Topology
from jscale.plan.sources import SourcePolicy, choose_sources


def cluster(**nics):
    return Topology(tuple(Host((name,), (nic,)) for name, nic in nics.items()))


def test_a_source_whose_outbound_link_serves_is_spared():
    topology = cluster(a=Nic(100, 100, outbound_busy=0.4), b=Nic(90, 90), c=Nic(80, 80))
    assert choose_sources("abc", topology) == ("b", "c")


def test_full_duplex_a_source_that_receives_is_not():
    topology = cluster(a=Nic(100, 100, inbound_busy=0.9), b=Nic(90, 90))
    assert choose_sources("ab", topology) == ("a", "b")


def test_where_all_serve_the_one_with_most_left_sends():
    busy = [Nic(100, 100, outbound_busy=share) for share in (0.5, 0.3, 0.4)]
    assert choose_sources("abc", cluster(a=busy[0], b=busy[1], c=busy[2])) == ("b",)


def test_a_source_much_slower_than_the_best_would_only_hold_up_its_subgroup():
    topology = cluster(a=Nic(40, 99), b=Nic(100, 99), c=Nic(50, 99))
    assert choose_sources("abc", topology) == ("b", "c")
    policy = SourcePolicy(rate_share_min=0)
    assert choose_sources("abc", topology, policy=policy) == ("b", "c", "a")


def test_workers_of_one_host_share_its_nics_so_one_of_them_sends():
    hosts = (Host(("a", "b"), (Nic(9, 9),)), Host(("c",), (Nic(9, 9),)))
    assert choose_sources("bca", Topology(hosts)) == ("b", "c")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SourcePolicy(outbound_busy_max=1.5), "outbound_busy_max 1.5: give 0"),
        (lambda: SourcePolicy(rate_share_min=-1), "rate_share_min -1: give 0 to 1"),
        (lambda: choose_sources((), Topology(())), "from no source: name at least one"),
        (lambda: choose_sources("z", Topology(())), "z is on none of the 0 hosts"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
