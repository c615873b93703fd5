"""Two processes' worth of `rdma://`, with chunks at both sides."""

import mmap
import os

import pytest

from jscale.transport.rdma_options import RdmaOptions

PLAN, SIZE, NUM = 7, 3000, 12
BOTH = ("fake0", "fake1")
WAYS = pytest.mark.parametrize(
    "options",
    [
        RdmaOptions(devices=BOTH[:1]),
        RdmaOptions(devices=BOTH),
        RdmaOptions(devices=BOTH, pulls=True),
        RdmaOptions(devices=BOTH[:1], depth=1),
        RdmaOptions(devices=BOTH, depth=5, pulls=True),
    ],
    ids=["one rail", "two rails", "pulled", "one at a time", "few, pulled"],
)


class Store:
    """Chunks at one side, in registered memory or not."""

    def __init__(self, transport, *, is_registered=True, is_full=False):
        self.mapping = mmap.mmap(-1, NUM * SIZE)
        self.view = memoryview(self.mapping)
        if is_full:
            self.view[:] = os.urandom(NUM * SIZE)
        if is_registered:
            transport.register(self.view)

    def chunk(self, index):
        return self.view[index * SIZE : (index + 1) * SIZE]


class Pair:
    """Two sides, with a store each; the first side's is full."""

    def __init__(self, net, options=None, *, is_registered=(True, True)):
        options = {"rdma": options} if options else {}
        self.near, self.far = net.recorder(), net.recorder()
        self.there, self.here = net.open("b", **options), net.open("a", **options)
        self.target = Store(self.there, is_registered=is_registered[1])
        self.listener = self.there.listen(net.any_address, self.far)
        self.connection = self.here.connect(self.listener.address, self.near)
        self.back = self.far.next("opened")
        self.source = Store(self.here, is_registered=is_registered[0], is_full=True)
        shelf = net.shelf(self.far)
        shelf.slot = self._slot
        self.num_slots = 0
        self.shelf = self.far.landings[PLAN] = shelf

    def _slot(self, connection, chunk):
        self.num_slots += 1
        return self.target.chunk(chunk)

    def write(self, chunk):
        self.connection.write_chunk(PLAN, chunk, self.source.chunk(chunk))

    def write_all(self):
        for chunk in range(NUM):
            self.write(chunk)

    def assert_all_landed(self):
        assert [self.far.next("landed") for _ in range(NUM)] == list(range(NUM))
        assert self.target.view == self.source.view
