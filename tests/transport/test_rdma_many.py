"""Many who connect, write, talk and leave at once, while requests fail now and then."""

import random
import threading

import pytest

from jscale.core.errors import TransportError
from jscale.transport.rdma_options import RdmaOptions
from tests.transport import late_verbs
from tests.transport.conftest import opened_and_closed
from tests.transport.rdma_pair import BOTH, NUM, PLAN, SIZE, Store

FAILURES = (10, 12, 13, 21)
NUM_CLIENTS, NUM_VISITS = 4, 5


@pytest.fixture
def rdma(fabric, monkeypatch):
    late_verbs.install(monkeypatch)
    yield from opened_and_closed("rdma")


class Counter:
    """Slots of one target, given out and given back."""

    def __init__(self, shelf, target, rng):
        self.num_taken = self.num_back = 0
        self._target, self._rng, self._lock = target, rng, threading.Lock()
        shelf.slot, shelf.landed, shelf.failed = self.slot, self.back, self.back

    def slot(self, connection, chunk):
        kind = self._rng.random()
        if kind < 0.2:
            return None
        with self._lock:
            self.num_taken += 1
        if kind < 0.9:
            return self._target.chunk(chunk)
        return memoryview(bytearray(SIZE))  # Where no device reaches.

    def back(self, connection, chunk):
        with self._lock:
            self.num_back += 1


def visit(transport, address, source, recorder, rng):
    """A connection from its beginning to its end, or to a failure."""
    connection = transport.connect(address, recorder)
    try:
        for _ in range(rng.randrange(30)):
            if rng.random() < 0.6:
                chunk = rng.randrange(NUM)
                connection.write_chunk(PLAN, chunk, source.chunk(chunk))
            else:
                connection.send_message(b"", bytes(rng.randrange(100_000)))
    finally:
        connection.close()


@pytest.mark.parametrize("seed", range(8))
def test_each_slot_is_given_back_once_and_nobody_waits_for_ever(rdma, fabric, seed):
    rng = random.Random(seed)
    depth = rng.choice([1, 3, 16])
    options = RdmaOptions(devices=BOTH, pulls=seed % 2 == 1, depth=depth)
    there, far = rdma.open("target", rdma=options), rdma.recorder()
    shelf = far.landings[PLAN] = rdma.shelf(far)
    counter = Counter(shelf, Store(there), rng)
    listener = there.listen(rdma.any_address, far)
    failures = []

    def come_and_go(number, transport, source):
        own = random.Random(100 * seed + number)
        for _ in range(NUM_VISITS):
            try:
                visit(transport, listener.address, source, rdma.recorder(), own)
            except TransportError as error:
                failures.append(str(error))

    threads = []
    for number in range(NUM_CLIENTS):
        transport = rdma.open(f"source{number}", rdma=options)
        source = Store(transport, is_registered=number > 0, is_full=True)
        arguments = number, transport, source
        threads.append(threading.Thread(target=come_and_go, args=arguments))
    if seed % 3 == 0:
        fabric.on_post = lambda qp, request: (
            rng.choice(FAILURES) if rng.random() < 0.003 else None
        )
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    there.close()
    assert counter.num_taken == counter.num_back
    assert seed % 3 == 0 or not failures
