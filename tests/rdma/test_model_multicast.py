"""A model goes from one process to three others, each on a device of its own.

By TCP where there are no devices.
"""

import hashlib
import itertools

import pytest

from jscale.checkpoint.random_model import config_of_size, write_random_model
from jscale.core.units import MIB
from tests.rdma.devices import DEVICES, device_counters, in_turn
from tests.rdma.processes import Child, children

pytestmark = pytest.mark.timeout(150)

SCHEMES = ["tcp"]
if DEVICES:
    SCHEMES = [pytest.param("rdma", marks=pytest.mark.rdma)]
NUM_MEMBERS = 4
SIZE_BYTES = 16 * MIB


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_member_holds_the_blocks_of_the_source(tmp_path, scheme):
    config = config_of_size(SIZE_BYTES, num_layers=4)
    manifest = write_random_model(tmp_path, config, num_blocks=4)
    devices = in_turn() if DEVICES else itertools.repeat("")
    before = device_counters()
    with children() as members:
        for rank in range(NUM_MEMBERS):
            members.append(
                Child("tests.rdma.member", rank, scheme, next(devices), tmp_path)
            )
        addresses = [member.hear() for member in members]
        for member in members:
            member.say(addresses)
        held = [member.hear() for member in members]
        for member in members:
            member.say("bye")
        assert [member.hear() for member in members] == ["closed"] * NUM_MEMBERS
    files = [tmp_path / block.file for block in manifest.blocks]
    written = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert held == [written] * NUM_MEMBERS
    if scheme == "rdma":  # It did not come by a socket.
        num_sent = sum(device_counters().values()) - sum(before.values())
        assert num_sent > (NUM_MEMBERS - 1) * SIZE_BYTES / 4096
