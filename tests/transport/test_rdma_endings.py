"""Connections that end amid something else, and others that must not notice."""

import errno

import pytest

from jscale.core.errors import TransportError
from jscale.transport.rdma_options import RdmaOptions
from jscale.transport.rdma_wire import Immediate
from tests.transport.conftest import opened_and_closed
from tests.transport.rdma_pair import BOTH, SIZE, Pair

IGNORE_THREADS = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)


@pytest.fixture
def rdma(fabric):
    yield from opened_and_closed("rdma")


def test_a_transport_may_be_closed_where_a_chunk_comes_to_unregistered_memory(rdma):
    pair = Pair(rdma, is_registered=(True, False))
    pair.write(0)
    assert pair.far.next("landed") == 0

    def slot(connection, chunk):
        pair.there.close()
        return memoryview(bytearray(SIZE))

    pair.shelf.slot = slot
    pair.write(1)
    assert pair.far.next("failed") == 1
    pair.near.next("lost")


def test_who_connects_while_the_transport_is_closed_leaves_nothing(rdma, monkeypatch):
    pair = Pair(rdma)
    equipment = pair.here._equipment
    call = equipment.call

    def call_and_close(sock):
        link = call(sock)
        pair.here.close()
        return link

    monkeypatch.setattr(equipment, "call", call_and_close)
    with pytest.raises(TransportError, match="this transport is closed"):
        pair.here.connect(pair.listener.address, rdma.recorder())


@pytest.mark.parametrize("immediate", list(Immediate))
def test_a_send_where_only_writes_come_ends_its_connection_alone(rdma, immediate):
    pair = Pair(rdma, RdmaOptions(devices=BOTH))
    near = rdma.recorder()
    other = pair.here.connect(pair.listener.address, near)
    pair.far.next("opened")
    queue_pair = pair.connection.link.queue_pairs[1]
    queue_pair.send((0, 0, 0), immediate, number=0, is_signalled=False)
    assert "a SEND where only writes come" in str(pair.far.next("lost"))
    other.send_message(b"still here", bytes(1 << 20))
    assert pair.far.next("message")[0] == b"still here"


@IGNORE_THREADS
def test_the_loss_is_told_even_if_the_end_goes_wrong(rdma):
    pair = Pair(rdma)

    def stop(reason):
        raise OSError(errno.EIO, "no such queue")

    pair.back.link.stop = stop
    pair.connection.close()
    pair.far.next("lost")
