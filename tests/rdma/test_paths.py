"""Which way chunks go: from what memory, by which devices, written or read."""

import mmap

import pytest

from jscale.transport.rdma_options import RdmaOptions
from tests.rdma.chunks import BYTES, CHUNK_SIZE_BYTES, NUM_CHUNKS, PLAN, CheckedShelf
from tests.rdma.devices import DEVICES, device_counters, require_devices

require_devices()
pytestmark = [pytest.mark.rdma, pytest.mark.timeout(60)]

PACKETS_OF_ALL = NUM_CHUNKS * CHUNK_SIZE_BYTES / 4096
"""Packets that carry at most a page each."""


def filled():
    memory = mmap.mmap(-1, NUM_CHUNKS * CHUNK_SIZE_BYTES)
    memory[:] = b"".join(BYTES)
    return memoryview(memory)


def send_all(connection, memory):
    for chunk in range(NUM_CHUNKS):
        start = chunk * CHUNK_SIZE_BYTES
        connection.write_chunk(PLAN, chunk, memory[start : start + CHUNK_SIZE_BYTES])


def landed(recorder):
    """The next chunks, as many as there are, which must all be right."""
    return [recorder.next("right") for _ in range(NUM_CHUNKS)]


@pytest.mark.parametrize("pulls", [False, True], ids=["written", "read"])
@pytest.mark.parametrize("source", ["registered", "unregistered"])
@pytest.mark.parametrize("target", ["registered", "unregistered"])
def test_chunks_arrive_whatever_memory_they_lie_in(net, source, target, pulls):
    def options():
        return RdmaOptions(devices=(next(net.devices),), pulls=pulls)

    near, far = net.recorder(), net.recorder()
    memory = filled()
    slots = mmap.mmap(-1, NUM_CHUNKS * CHUNK_SIZE_BYTES)
    far.landings[PLAN] = CheckedShelf(far, slots)
    receiver, sender = net.open("b", rdma=options()), net.open("a", rdma=options())
    if target == "registered":
        receiver.register(memoryview(slots))
    if source == "registered":
        sender.register(memory)
    listener = receiver.listen(net.any_address, far)
    connection = sender.connect(listener.address, near)
    far.next("opened")
    send_all(connection, memory)
    assert landed(far) == list(range(NUM_CHUNKS))


@pytest.mark.skipif(len(DEVICES) < 4, reason="needs two devices on each side")
@pytest.mark.parametrize("pulls", [False, True], ids=["written", "read"])
def test_chunks_are_spread_over_all_devices(net, pulls):
    near, far = net.recorder(), net.recorder()
    memory = filled()
    slots = mmap.mmap(-1, NUM_CHUNKS * CHUNK_SIZE_BYTES)
    far.landings[PLAN] = CheckedShelf(far, slots)
    receiver = net.open("b", rdma=RdmaOptions(devices=DEVICES[:2], pulls=pulls))
    sender = net.open("a", rdma=RdmaOptions(devices=DEVICES[2:4], pulls=pulls))
    receiver.register(memoryview(slots))
    sender.register(memory)
    before = device_counters()
    listener = receiver.listen(net.any_address, far)
    connection = sender.connect(listener.address, near)
    far.next("opened")
    send_all(connection, memory)
    assert sorted(landed(far)) == list(range(NUM_CHUNKS))
    for device in DEVICES[2:4]:
        num_sent = device_counters()[device] - before[device]
        assert num_sent >= PACKETS_OF_ALL / 2, device
