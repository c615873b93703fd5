"""A model goes from one process to three others, each on a device of its own."""

import pytest

from jscale.checkpoint.random_model import config_of_size, write_random_model
from jscale.core.units import MIB
from tests.rdma.devices import device_counters, in_turn, require_devices
from tests.rdma.processes import Child, children

require_devices()
pytestmark = [pytest.mark.rdma, pytest.mark.timeout(150)]

NUM_MEMBERS = 4
SIZE_BYTES = 16 * MIB


def test_every_member_holds_the_blocks_of_the_source(tmp_path):
    config = config_of_size(SIZE_BYTES, num_layers=4)
    manifest = write_random_model(tmp_path, config, num_blocks=4)
    devices = in_turn()
    before = device_counters()
    with children() as members:
        for rank in range(NUM_MEMBERS):
            members.append(
                Child("tests.rdma.member", rank, "rdma", next(devices), tmp_path)
            )
        addresses = [member.hear() for member in members]
        for member in members:
            member.say(addresses)
        held = [member.hear() for member in members]
        for member in members:
            member.say("bye")
        assert [member.hear() for member in members] == ["closed"] * NUM_MEMBERS
    assert held == [[block.sha256 for block in manifest.blocks]] * NUM_MEMBERS
    num_sent = sum(device_counters().values()) - sum(before.values())
    assert num_sent > (NUM_MEMBERS - 1) * SIZE_BYTES / 4096  # Not by a socket.
