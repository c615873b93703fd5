import dataclasses

import pytest

from jscale.core.errors import ConfigError
from jscale.transport.rdma_devices import (
    EMPTY_PLACES_MAX,
    choose_ports,
    list_ports,
    settled,
)
from jscale.transport.rdma_options import RdmaOptions
from tests.transport.fake_sysfs import (
    GLOBAL,
    LINK_LOCAL,
    V1,
    V2,
    FakePort,
    add_device,
    infiniband,
    roce,
    soft_roce,
)


@pytest.fixture
def two_nics(tmp_path):
    """A server with an accelerator and a 400 Gbit/s NIC on each of two nodes."""
    add_device(
        tmp_path, "mlx5_0", roce("10.0.0.2", "eth0", rate="400 Gb/sec (4X)"), numa=0
    )
    add_device(
        tmp_path, "mlx5_1", roce("10.0.1.2", "eth1", rate="400 Gb/sec (4X)"), numa=1
    )
    add_device(tmp_path, "mlx5_2", roce("10.9.0.2", "mgmt", rate="25 Gb/sec"), numa=1)
    return list_ports(tmp_path)


def names(ports):
    return [port.name for port in ports]


# --- what there is -------------------------------------------------------------------


def test_a_machine_without_devices_lists_none(tmp_path):
    assert list_ports(tmp_path) == ()


def test_a_device_is_read_with_its_ports(tmp_path):
    down = roce("10.0.0.3", "eth1", state="1: DOWN", rate="40 Gb/sec (4X QDR)")
    add_device(tmp_path, "mlx5_0", roce("10.0.0.2"), down, numa=1)
    first, second = list_ports(tmp_path)
    assert first.describe() == "mlx5_0:1 ACTIVE 100 Gbit/s Ethernet"
    assert second.describe() == "mlx5_0:2 DOWN 40 Gbit/s Ethernet"
    assert (first.numa_node, second.numa_node) == (1, 1)


def test_addresses_have_index_kind_and_interface_and_empty_places_are_left_out(
    tmp_path,
):
    add_device(tmp_path, "mlx5_0", roce("10.0.0.2", "eth7"))
    (port,) = list_ports(tmp_path)
    assert [gid.index for gid in port.gids] == [0, 1, 2, 3]
    assert [gid.kind for gid in port.gids] == [V1, V2, V1, V2]
    assert {gid.netdev for gid in port.gids} == {"eth7"}
    assert port.gids[3].address == "::ffff:10.0.0.2"
    assert port.gids[3].host == "10.0.0.2"


def test_holes_in_the_table_are_passed_over_and_its_end_is_not_read_on(tmp_path):
    add_device(tmp_path, "rxe0", soft_roce("10.77.0.1", "node0"))
    folder = tmp_path / "class/infiniband/rxe0/ports/1/gids"
    unused = (folder / "2").read_text()
    for index in range(3, 1024):
        (folder / str(index)).write_text(unused)
    beyond_a_hole = 1 + EMPTY_PLACES_MAX
    (folder / str(beyond_a_hole)).write_text(GLOBAL + "\n")
    (folder / "1023").write_text(GLOBAL + "\n")
    (port,) = list_ports(tmp_path)
    assert [gid.index for gid in port.gids] == [0, 1, beyond_a_hole]


def test_roce_of_ipv4_is_preferred_to_that_of_the_link_alone(tmp_path):
    add_device(tmp_path, "mlx5_0", roce("10.0.0.2"))
    (port,) = list_ports(tmp_path)
    assert port.gid_index == 3
    assert port.gid == port.gids[3]


def test_a_routed_ipv6_address_is_preferred_to_that_of_the_link_alone(tmp_path):
    gids = ((LINK_LOCAL, V2, "eth0"), (GLOBAL, V2, "eth0"))
    add_device(tmp_path, "mlx5_0", FakePort(gids))
    (port,) = list_ports(tmp_path)
    assert port.gid.host == "2001:db8::2"


def test_infiniband_uses_its_first_gid_and_has_a_lid(tmp_path):
    add_device(tmp_path, "mlx4_0", infiniband(lid="0x1c"), numa=0)
    (port,) = list_ports(tmp_path)
    assert (port.link_layer, port.gid_index, port.lid) == ("InfiniBand", 0, 28)
    assert choose_ports((port,), RdmaOptions(), host="10.0.0.2") == (port,)


def test_software_devices_have_no_node(tmp_path):
    add_device(tmp_path, "rxe0", soft_roce("10.77.0.1", "node0"))
    add_device(tmp_path, "mlx5_0", roce("10.0.0.2"), numa=-1)
    assert {port.numa_node for port in list_ports(tmp_path)} == {None}


def test_the_tenth_device_comes_after_the_second(tmp_path):
    for number in (10, 2, 0):
        add_device(tmp_path, f"mlx5_{number}", roce("10.0.0.2"))
    assert names(list_ports(tmp_path)) == ["mlx5_0:1", "mlx5_2:1", "mlx5_10:1"]


# --- the choice ----------------------------------------------------------------------


def test_the_devices_that_are_named_are_used_in_that_order(two_nics):
    options = RdmaOptions(devices=("mlx5_2", "mlx5_0"))
    chosen = choose_ports(two_nics, options, near_numa=1, host="10.0.1.2")
    assert names(chosen) == ["mlx5_2:1", "mlx5_0:1"]


def test_the_port_with_the_workers_own_address_is_used_wherever_it_is(two_nics):
    chosen = choose_ports(two_nics, RdmaOptions(), near_numa=0, host="10.9.0.2")
    assert names(chosen) == ["mlx5_2:1"]


def test_the_nearest_of_the_fastest_are_used_for_another_address(two_nics):
    for near, expected in ((0, ["mlx5_0:1"]), (1, ["mlx5_1:1"])):
        chosen = choose_ports(two_nics, RdmaOptions(), near_numa=near, host="127.0.0.1")
        assert names(chosen) == expected


@pytest.mark.parametrize("near", [None, 7])
def test_all_of_the_fastest_are_used_where_none_is_near(two_nics, near):
    chosen = choose_ports(two_nics, RdmaOptions(), near_numa=near)
    assert names(chosen) == ["mlx5_0:1", "mlx5_1:1"]


def test_software_devices_are_as_near_as_any(tmp_path):
    for number in range(2):
        port = soft_roce(f"10.77.0.{number + 1}", f"node{number}")
        add_device(tmp_path, f"rxe{number}", port)
    ports = list_ports(tmp_path)
    chosen = choose_ports(ports, RdmaOptions(), near_numa=None, host="127.0.0.1")
    assert names(chosen) == ["rxe0:1", "rxe1:1"]
    chosen = choose_ports(ports, RdmaOptions(), near_numa=0, host="10.77.0.2")
    assert names(chosen) == ["rxe1:1"]


def test_the_address_of_the_worker_is_the_one_that_is_used(tmp_path):
    port = roce("10.0.0.2")
    both = dataclasses.replace(port, gids=port.gids + roce("10.5.5.5").gids[2:])
    add_device(tmp_path, "mlx5_0", both)
    ports = list_ports(tmp_path)
    assert choose_ports(ports, RdmaOptions())[0].gid.host == "10.0.0.2"
    (chosen,) = choose_ports(ports, RdmaOptions(), host="10.5.5.5")
    assert (chosen.gid.host, chosen.gid.kind) == ("10.5.5.5", V2)


def test_the_index_that_is_given_is_used_even_if_it_is_of_version_1(two_nics):
    (chosen, *_) = choose_ports(two_nics, RdmaOptions(gid_index=2), host="10.0.0.2")
    assert (chosen.gid_index, chosen.gid.kind) == (2, V1)


def test_a_device_of_two_ports_uses_the_active_one_or_the_one_given(tmp_path):
    down = roce("10.0.0.2", state="1: DOWN")
    add_device(tmp_path, "mlx5_0", down, roce("10.0.0.3", "eth1"))
    ports = list_ports(tmp_path)
    for devices in ((), ("mlx5_0",), ("mlx5_0:2",)):
        assert names(choose_ports(ports, RdmaOptions(devices))) == ["mlx5_0:2"]


def test_both_ports_of_a_device_may_be_named(tmp_path):
    add_device(tmp_path, "mlx5_0", roce("10.0.0.2"), roce("10.0.0.3", "eth1"))
    options = RdmaOptions(("mlx5_0:2", "mlx5_0:1"))
    chosen = choose_ports(list_ports(tmp_path), options)
    assert names(chosen) == ["mlx5_0:2", "mlx5_0:1"]


def test_what_was_chosen_is_chosen_again_without_the_address(two_nics):
    for host in ("10.0.0.2", "10.9.0.2", "127.0.0.1"):
        chosen = choose_ports(two_nics, RdmaOptions(), near_numa=1, host=host)
        assert choose_ports(two_nics, settled(RdmaOptions(), chosen)) == chosen


# --- what cannot be ------------------------------------------------------------------


def refusal(ports, options):
    with pytest.raises(ConfigError) as refused:
        choose_ports(ports, options, host="10.0.0.2")
    return str(refused.value)


def test_a_device_that_is_not_there_is_answered_by_those_that_are(two_nics):
    said = refusal(two_nics, RdmaOptions(devices=("mlx5_7",)))
    assert "'mlx5_7'" in said
    assert "mlx5_0:1 ACTIVE 400 Gbit/s Ethernet, mlx5_1:1" in said


def test_a_port_that_is_not_there_is_answered_by_those_that_are(two_nics):
    said = refusal(two_nics, RdmaOptions(devices=("mlx5_0:2",)))
    assert "no RDMA device 'mlx5_0:2': there is mlx5_0:1 ACTIVE" in said


def test_a_named_device_that_is_down_is_told_of_its_cable(tmp_path):
    add_device(tmp_path, "mlx5_0", roce("10.0.0.2", state="1: DOWN"))
    said = refusal(list_ports(tmp_path), RdmaOptions(devices=("mlx5_0",)))
    assert "mlx5_0:1 DOWN" in said
    assert "cable" in said


def test_devices_that_are_all_down_are_listed(tmp_path):
    add_device(tmp_path, "mlx5_0", roce("10.0.0.2", state="1: DOWN"))
    said = refusal(list_ports(tmp_path), RdmaOptions())
    assert "no active RDMA port: there is mlx5_0:1 DOWN" in said
    assert "--transport=tcp" in said


def test_no_device_at_all_is_said_so():
    assert "there is none" in refusal((), RdmaOptions())


def test_an_index_that_is_not_there_is_answered_by_those_that_are(two_nics):
    said = refusal(two_nics, RdmaOptions(gid_index=9))
    assert "mlx5_0:1 has no GID 9: it has 0, 1, 2, 3" in said


def test_ethernet_without_version_2_says_what_to_do(tmp_path):
    add_device(tmp_path, "mlx4_0", FakePort(((LINK_LOCAL, V1, "eth0"),)))
    ports = list_ports(tmp_path)
    assert "no RoCE v2 GID: give its interface an IP" in refusal(ports, RdmaOptions())
    assert choose_ports(ports, RdmaOptions(gid_index=0))[0].gid.kind == V1
