import dataclasses

import pytest

from jscale.core.errors import ConfigError
from jscale.transport.choice import choose_transport
from jscale.transport.numa import numa_of_gpus, numa_of_process, numa_of_worker
from jscale.transport.rdma_devices import choose_ports, list_ports
from jscale.transport.rdma_options import RdmaOptions
from jscale.transport.schemes import TRANSPORTS, demanded_scheme
from tests.transport.fake_sysfs import add_device, roce

HERE, REASON = "10.0.0.2:0", "no pyverbs: install it"


@pytest.fixture
def machine(tmp_path):
    """One with RDMA."""
    add_device(tmp_path, "mlx5_0", roce("10.0.0.2"), numa=0)
    add_device(tmp_path, "mlx5_1", roce("10.0.1.2", "eth1"), numa=1)
    return {"why_not": lambda: None, "ports": lambda: list_ports(tmp_path)}


PLAIN = {"why_not": lambda: REASON, "ports": lambda: pytest.fail("there are none")}
"""A machine without."""


@pytest.mark.parametrize(
    ("address", "transport", "scheme"),
    [
        (HERE, "auto", None),
        (HERE, "tcp", "tcp"),
        (HERE, "rdma", "rdma"),
        ("tcp://" + HERE, "auto", "tcp"),
        ("tcp://" + HERE, "tcp", "tcp"),
        ("rdma://" + HERE, "auto", "rdma"),
        ("rdma://" + HERE, "rdma", "rdma"),
        ("mem://w0", "auto", "mem"),
    ],
)
def test_an_address_or_the_flag_may_demand_a_scheme(address, transport, scheme):
    assert demanded_scheme(address, transport) == scheme


@pytest.mark.parametrize(
    ("address", "transport", "said"),
    [
        ("tcp://" + HERE, "rdma", "transport is rdma and data_address tcp://"),
        ("rdma://" + HERE, "tcp", "give HOST:PORT alone"),
        ("pigeon://roof", "auto", "no known scheme"),
        (HERE, "pigeon", "give one of auto, tcp, rdma"),
        (HERE, "mem", "transport is 'mem'"),
    ],
)
def test_a_contradiction_is_refused(address, transport, said):
    with pytest.raises(ConfigError, match=said):
        demanded_scheme(address, transport)


def test_rdma_is_used_where_it_can_be_and_says_by_what(machine):
    choice = choose_transport(HERE, **machine)
    assert choice.address == "rdma://10.0.0.2:0"
    assert choice.reason == "by mlx5_0:1 (100 Gbit/s, GID 3 10.0.0.2)"


def test_the_ports_that_were_chosen_are_those_that_the_transport_chooses(machine):
    for near in (0, 1, None):
        choice = choose_transport("127.0.0.1:0", near_numa=near, **machine)
        assert choose_ports(machine["ports"](), choice.options) == choice.ports
        assert len(choice.ports) == (2 if near is None else 1)


def test_other_options_stay_as_they_were_given(machine):
    options = RdmaOptions(retry_s=7.0, pulls=True, depth=3)
    choice = choose_transport(HERE, "auto", options, **machine)
    named = dataclasses.replace(options, devices=("mlx5_0:1",), gid_index=3)
    assert choice.options == named


def test_tcp_is_used_where_rdma_cannot_be_and_the_reason_is_told():
    choice = choose_transport(HERE, **PLAIN)
    assert choice.address == "tcp://10.0.0.2:0"
    assert choice.reason == f"no RDMA: {REASON}"
    assert choice.ports == ()


def test_tcp_is_used_where_no_port_can_be(machine):
    choice = choose_transport(HERE, "auto", RdmaOptions(("mlx5_9",)), **machine)
    assert choice.address == "tcp://10.0.0.2:0"
    assert "no RDMA device 'mlx5_9'" in choice.reason


@pytest.mark.parametrize(
    ("address", "transport"), [(HERE, "rdma"), ("rdma://" + HERE, "auto")]
)
def test_rdma_that_was_demanded_is_refused_with_the_reason(address, transport):
    with pytest.raises(ConfigError, match=f"cannot be used: {REASON}"):
        choose_transport(address, transport, **PLAIN)


@pytest.mark.parametrize("address", ["tcp://" + HERE, HERE])
def test_tcp_that_was_demanded_looks_for_no_device(address):
    absent = {name: lambda: pytest.fail("it looked") for name in PLAIN}
    choice = choose_transport(address, "tcp", **absent)
    assert (choice.scheme, choice.address) == ("tcp", "tcp://10.0.0.2:0")


def test_the_machines_name_is_as_good_as_its_address(machine, monkeypatch):
    answer = [(2, 1, 6, "", ("10.0.1.2", 0))]
    monkeypatch.setattr("socket.getaddrinfo", lambda host, port: answer)
    choice = choose_transport("node7:0", near_numa=0, **machine)
    assert choice.address == "rdma://node7:0"
    assert choice.options.devices == ("mlx5_1:1",)


def test_every_transport_that_can_be_asked_for_is_answered(machine):
    schemes = [choose_transport(HERE, asked, **machine).scheme for asked in TRANSPORTS]
    assert schemes == ["rdma", "tcp", "rdma"]


# --- where the process runs ----------------------------------------------------------


@pytest.mark.parametrize(
    ("processors", "node"),
    [({0, 3}, 0), ({9}, 0), ({4, 7}, 1), ({3, 4}, None), ({99}, None)],
)
def test_a_process_is_on_the_node_that_has_all_its_processors(
    tmp_path, processors, node
):
    for number, listed in enumerate(("0-3,8-9\n", "4-7\n", "\n")):
        folder = tmp_path / "devices/system/node" / f"node{number}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(listed)
    assert numa_of_process(tmp_path, frozenset(processors)) == node


def test_a_machine_that_tells_of_no_nodes_has_none(tmp_path):
    assert numa_of_process(tmp_path) is None


@pytest.mark.parametrize(
    ("visible", "node"),
    [
        (None, None),
        ("0", 1),
        ("0,1", 1),
        ("2", 0),
        ("0, 2", None),
        ("3", None),
        ("9", None),
        ("", None),
        ("GPU-5ebe9ba7", None),
    ],
)
def test_a_worker_is_where_its_gpus_are_if_they_are_in_one_place(
    tmp_path, visible, node
):
    places = (("18", 1), ("2a", 1), ("9b", 0), ("c1", -1))
    for bus, numa_node in places:
        gpu = tmp_path / f"bus/pci/drivers/nvidia/0000:{bus}:00.0"
        gpu.mkdir(parents=True)
        (gpu / "numa_node").write_text(f"{numa_node}\n")
    (tmp_path / "bus/pci/drivers/nvidia/new_id").touch()
    assert numa_of_gpus(visible, tmp_path) == node


def test_a_worker_without_gpus_is_where_its_processors_are(tmp_path):
    folder = tmp_path / "devices/system/node/node0"
    folder.mkdir(parents=True)
    (folder / "cpulist").write_text("0-4095\n")
    assert numa_of_gpus(None, tmp_path) is None
    assert numa_of_worker(None, tmp_path) == 0


def test_gpus_are_nowhere_for_a_kernel_that_knows_of_no_nodes(tmp_path):
    (tmp_path / "bus/pci/drivers/nvidia/0000:18:00.0").mkdir(parents=True)
    assert numa_of_gpus(None, tmp_path) is None
    assert numa_of_worker(None, tmp_path) is None
