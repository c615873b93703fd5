"""Links that go down, and up again or not: only in the lab, which has its own."""

import pathlib
import subprocess

import pytest

from tests.rdma.chunks import NUM_CHUNKS
from tests.rdma.devices import IN_LAB, device_errors, require_devices
from tests.rdma.line import Line, events_until_lost, nothing_is_wrong

require_devices()
pytestmark = [
    pytest.mark.rdma,
    pytest.mark.timeout(90),
    pytest.mark.skipif(not IN_LAB, reason="links are taken down in the lab only"),
]
# Transports of a test are on nodes 0 and 1, in the order in which they are opened.
RECEIVER, SENDER = 0, 1


def set_link(name, how):
    subprocess.run(["ip", "link", "set", name, how], check=True)


@pytest.fixture
def cable():
    """Takes the far end of a node's link down or up: what a cable or a switch does."""
    yield lambda node, how: set_link(f"port{node}", how)
    for node in (RECEIVER, SENDER):
        set_link(f"port{node}", "up")


@pytest.fixture
def interface():
    """Takes a node's own interface down or up, as an operator may."""

    def change(node, how):
        set_link(f"node{node}", how)
        if how == "up":  # The kernel forgot the routes.
            subprocess.run(["node-routes", str(node)], check=True)

    yield change
    for node in (RECEIVER, SENDER):
        change(node, "up")


def state(device):
    path = pathlib.Path("/sys/class/infiniband", device, "ports/1/state")
    return path.read_text().split()[-1]


@pytest.mark.parametrize("node", [RECEIVER, SENDER])
def test_a_cable_that_is_plugged_in_again_soon_costs_nothing(net, cable, node):
    line = Line(net, retry_s=30.0, timeout_s=40.0)
    assert line.works()
    before = device_errors("sent_pkts")
    cable(node, "down")
    line.write(NUM_CHUNKS // 2)
    while device_errors("sent_pkts") == before:  # Something has been lost.
        pass
    cable(node, "up")
    for chunk in range(NUM_CHUNKS // 2):
        assert line.far.next("right") == chunk
    assert line.works()


@pytest.mark.parametrize("node", [RECEIVER, SENDER])
def test_a_cable_that_stays_out_is_a_loss_that_is_named(net, cable, node):
    line = Line(net, retry_s=0.5)
    assert line.works()
    cable(node, "down")
    reason = line.write_until_lost()
    assert "retries exceeded" in reason
    line.near.next("lost")
    seen, _ = events_until_lost(line.far)
    assert nothing_is_wrong(seen)
    assert not line.shelf.taken
    cable(node, "up")
    line.connect()
    assert line.works()


def test_an_interface_that_is_taken_down_is_a_loss_that_is_named(net, interface):
    line = Line(net, retry_s=0.5)
    assert line.works()
    interface(SENDER, "down")
    assert line.write_until_lost()
    line.near.next("lost")
    seen, _ = events_until_lost(line.far)
    assert nothing_is_wrong(seen)
    assert not line.shelf.taken
    interface(SENDER, "up")
    line.connect()
    assert line.works()
