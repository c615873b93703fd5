"""Connections that end amid something else, and others that must not notice."""

import errno
import importlib
import socket
import threading
import types

import pytest

from jscale.core.errors import TransportError
from jscale.transport.rdma_endpoint import REGIONS_MAX
from jscale.transport.rdma_options import RdmaOptions
from jscale.transport.rdma_wire import Immediate
from tests.transport import fake_verbs
from tests.transport.conftest import PATIENCE_S, opened_and_closed
from tests.transport.rdma_pair import BOTH, PLAN, SIZE, Pair

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


@pytest.mark.parametrize(("kind", "what"), [(0, "completion"), (14, "receive")])
def test_a_queue_of_the_device_that_fails_ends_its_connections(rdma, kind, what):
    pair = Pair(rdma)
    pair.connection.link.queue_pairs[0].rail.context.tell(kind)
    assert f"the {what} queue failed" in str(pair.near.next("lost"))
    pair.far.next("lost")


def test_a_queue_pair_that_cannot_be_asked_has_failed_and_no_other(rdma):
    pair = Pair(rdma)
    near = rdma.recorder()
    other = pair.here.connect(pair.listener.address, near)
    pair.far.next("opened")

    def query(what):
        raise fake_verbs.PyverbsError("Failed to query QP")

    (queue_pair, *_) = pair.connection.link.queue_pairs
    queue_pair._qp.query = query
    queue_pair.rail.context.tell(fake_verbs.ACCESS_ERROR_EVENT)
    assert "access error" in str(pair.near.next("lost"))
    pair.far.next("lost")
    other.send_message(b"still here")
    assert pair.far.next("message")[0] == b"still here"


def test_what_goes_wrong_with_one_connection_ends_no_other(rdma):
    pair = Pair(rdma)
    near = rdma.recorder()
    other = pair.here.connect(pair.listener.address, near)
    pair.far.next("opened")

    def completed(rail, completion):
        raise AssertionError("the queue is full")

    pair.connection.link.completed = completed
    pair.back.send_message(b"to one")
    assert "the queue is full" in str(pair.near.next("lost"))
    pair.far.next("lost")
    other.send_message(b"still here")
    assert pair.far.next("message")[0] == b"still here"


@IGNORE_THREADS
def test_the_loss_is_told_even_if_the_end_goes_wrong(rdma):
    pair = Pair(rdma)

    def stop(reason):
        raise OSError(errno.EIO, "no such queue")

    pair.back.link.stop = stop
    pair.connection.close()
    pair.far.next("lost")


@IGNORE_THREADS
def test_nobody_connects_on_a_poller_that_is_failing(rdma):
    pair = Pair(rdma)
    link = pair.connection.link
    is_failing, may_go_on = threading.Event(), threading.Event()
    fail = link.fail

    def wait_and_fail(reason):
        is_failing.set()
        may_go_on.wait(PATIENCE_S)
        fail(reason)

    def poll():
        raise OSError(errno.EIO, "no such device")

    link.fail = wait_and_fail
    link.queue_pairs[0].rail.poll = poll
    pair.back.send_message(b"wake up")
    assert is_failing.wait(PATIENCE_S)
    with pytest.raises(TransportError, match="RDMA has failed in this process"):
        pair.here.connect(pair.listener.address, rdma.recorder())
    may_go_on.set()
    pair.near.next("lost")


def test_memory_can_be_registered_and_given_back_any_number_of_times(rdma):
    pair = Pair(rdma)
    memory = pair.there._equipment.memory
    num_kept = len(memory.regions)
    view = memoryview(bytearray(4096))
    for _ in range(REGIONS_MAX + 1):
        number = memory.add(view).number
        memory.remove(number)
    assert len(memory.regions) == num_kept
    pair.write_all()
    pair.assert_all_landed()


def test_peers_hear_only_of_their_own_landing_pad(rdma):
    pair = Pair(rdma, is_registered=(True, False))
    pair.write_all()
    pair.assert_all_landed()
    other = pair.here.connect(pair.listener.address, rdma.recorder())
    pair.far.next("opened")
    other.write_chunk(PLAN, 0, pair.source.chunk(0))
    assert pair.far.next("landed") == 0
    told = [set(each.link._offers._regions) for each in (pair.connection, other)]
    assert len(told[0] - told[1]) == len(told[1] - told[0]) == 1


class Stub:
    """A link as the poller sees it, of no queue pairs."""

    def __init__(self, sock, read_notes):
        self.queue_pairs = ()
        self.channel = types.SimpleNamespace(fileno=sock.fileno)
        self.read_notes = read_notes

    def settle(self, now_s):
        return True


def test_a_link_that_got_the_descriptor_of_one_that_ends_is_listened_to(fabric):
    here, there = socket.socketpair()
    is_heard = threading.Event()

    def read_of_next():
        try:
            here.recv(1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        is_heard.set()
        return True

    def read_of_first():
        """By the time it has read the last note, all that follows has happened."""
        here.recv(1)
        poller.detach(first)
        poller.listen(following)
        there.send(b"2")
        return True

    poller = importlib.import_module("jscale.transport.rdma_poller").Poller([])
    first, following = Stub(here, lambda: False), Stub(here, read_of_next)
    poller.listen(first)
    first.read_notes = read_of_first
    there.send(b"1")
    assert is_heard.wait(PATIENCE_S)
    poller.close()
    for sock in (here, there):
        sock.close()
