"""Two transports that are connected, one of which writes chunks to the other."""

import mmap

import pytest

from jscale.core.errors import PeerLostError
from jscale.transport.rdma_options import RdmaOptions
from tests.rdma.chunks import BYTES, CHUNK_SIZE_BYTES, NUM_CHUNKS, PLAN, CheckedShelf
from tests.transport.conftest import PATIENCE_S

MANY = 10_000
"""More than is ever written before something ends a connection."""


class Line:
    """A connected pair: `connection` writes what lies in `memory` to `far`'s shelf."""

    def __init__(self, net, *, checksum=None, retry_s=2.0, timeout_s=5.0):
        self.net = net
        self.near, self.far = net.recorder(), net.recorder()
        self.memory = mmap.mmap(-1, NUM_CHUNKS * CHUNK_SIZE_BYTES)
        self.memory[:] = b"".join(BYTES)
        slots = mmap.mmap(-1, NUM_CHUNKS * CHUNK_SIZE_BYTES)
        self.shelf = CheckedShelf(self.far, slots)
        self.far.landings[PLAN] = self.shelf
        options = {"timeout_s": timeout_s}
        if checksum:
            options["checksum"] = checksum

        def rdma():
            return RdmaOptions(devices=(next(net.devices),), retry_s=retry_s)

        self.receiver = net.open("b", rdma=rdma(), **options)
        self.sender = net.open("a", rdma=rdma(), **options)
        self.receiver.register(memoryview(slots))
        self.sender.register(memoryview(self.memory))
        self.listener = self.receiver.listen(net.any_address, self.far)
        self.connect()

    def connect(self):
        self.connection = self.sender.connect(self.listener.address, self.near)
        self.back = self.far.next("opened")

    def view(self, chunk):
        start = chunk * CHUNK_SIZE_BYTES
        return memoryview(self.memory)[start : start + CHUNK_SIZE_BYTES]

    def write(self, count, connection=None):
        for number in range(count):
            chunk = number % NUM_CHUNKS
            (connection or self.connection).write_chunk(PLAN, chunk, self.view(chunk))

    def write_until_lost(self):
        with pytest.raises(PeerLostError) as raised:
            self.write(MANY)
        return str(raised.value)

    def works(self):
        """Whether all chunks arrive."""
        for chunk in range(NUM_CHUNKS):
            self.connection.write_chunk(PLAN, chunk, self.view(chunk))
            assert self.far.next("right") == chunk
        return True


def events_until_lost(recorder):
    """All that happened before the loss, and its reason."""
    seen = []
    while (event := recorder.events.get(timeout=PATIENCE_S))[0] != "lost":
        seen.append(event)
    return seen, str(event[1])


def nothing_is_wrong(events):
    return all(event[0] in ("right", "failed", "announced") for event in events)
