"""What only RDMA does, and suffers; on simulated devices."""

import contextlib
import ctypes
import itertools
import mmap
import os
import re
import socket

import pytest

from jscale.core.errors import PeerLostError, TransportError
from jscale.core.spans import DeviceSpan
from jscale.transport.rdma_options import RdmaOptions
from jscale.transport.rdma_side_channel import SideChannel
from tests.transport import fake_verbs, late_verbs
from tests.transport.conftest import Net, opened_and_closed
from tests.transport.rdma_pair import BOTH, NUM, SIZE, WAYS, Pair, Store


@pytest.fixture(params=["at once", "late"])
def rdma(request, fabric, monkeypatch):
    if request.param == "late":
        late_verbs.install(monkeypatch)
    yield from opened_and_closed("rdma")


def writes_of(qp, request):
    return request.opcode in (fake_verbs.WRITE_IMM, fake_verbs.READ)


def failing(status, *, after=0):
    """Chunks fail with that status, from the so-manieth on."""
    count = itertools.count()

    def on_post(qp, request):
        is_next = writes_of(qp, request) and next(count) >= after
        return status if is_next else None

    return on_post


@WAYS
def test_chunks_go_straight_from_memory_to_memory(rdma, fabric, options):
    moved = []
    fabric.on_post = lambda qp, request: moved.append((request.opcode, request.local))
    pair = Pair(rdma, options)
    pair.write_all()
    pair.assert_all_landed()
    chunks = [
        local
        for opcode, local in moved
        if opcode == (fake_verbs.READ if options.pulls else fake_verbs.WRITE_IMM)
    ]
    ends = pair.target if options.pulls else pair.source
    start = ctypes.addressof(ctypes.c_char.from_buffer(ends.view))
    assert sorted(address - start for address, _, _ in chunks) == [
        index * SIZE for index in range(NUM)
    ]
    assert len({lkey for _, _, lkey in chunks}) == len(options.devices)


@WAYS
@pytest.mark.parametrize(
    "is_registered", [(True, False), (False, True), (False, False)]
)
def test_chunks_in_other_memory_arrive_too(rdma, options, is_registered):
    pair = Pair(rdma, options, is_registered=is_registered)
    pair.write_all()
    pair.assert_all_landed()


@WAYS
def test_messages_and_chunks_keep_their_order(rdma, options):
    pair = Pair(rdma, options)
    for chunk in range(NUM):
        pair.write(chunk)
        pair.connection.send_message(b"%d" % chunk, bytes(40_000 * (chunk % 3)))
    for chunk in range(NUM):
        assert pair.far.next("landed") == chunk
        assert pair.far.next("message")[0] == b"%d" % chunk


@WAYS
def test_what_is_not_needed_is_not_moved(rdma, fabric, options):
    pair = Pair(rdma, options)
    pair.shelf.slot = lambda _, chunk: (
        pair.target.chunk(chunk) if chunk % 3 == 1 else None
    )
    pair.write_all()
    pair.connection.send_message(b"end")
    assert [pair.far.next("landed") for _ in range(NUM // 3)] == [1, 4, 7, 10]
    assert pair.far.next("message")[0] == b"end"
    pair.connection.close()
    assert not len(pair.connection.link._offers), "each was answered, and is free"


@WAYS
def test_what_was_written_before_a_close_lands_before_the_loss(rdma, options):
    pair = Pair(rdma, options)
    pair.write_all()
    pair.connection.close()
    pair.assert_all_landed()
    assert "closed the connection" in str(pair.far.next("lost"))


@WAYS
def test_a_chunk_damaged_on_its_way_fails_and_the_others_land(rdma, fabric, options):
    pair = Pair(rdma, options)
    first = ctypes.c_char.from_buffer(pair.target.chunk(2))
    address = ctypes.addressof(first)

    def damage(qp, request):
        status = qp.carry_out(request)
        is_read = request.opcode == fake_verbs.READ
        if writes_of(qp, request) and address in (
            request.local[:1] if is_read else request.remote[1:]
        ):
            ctypes.memset(address, first.value[0] ^ 1, 1)
        return status

    fabric.on_post = damage
    pair.write_all()
    events = [pair.far.events.get(timeout=10) for _ in range(NUM)]
    assert events == [("failed" if i == 2 else "landed", i) for i in range(NUM)]
    fabric.on_post = lambda qp, request: None
    pair.write(2)
    assert pair.far.next("landed") == 2


@WAYS
@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (fake_verbs.RETRY, "its NIC does not answer"),
        (fake_verbs.RNR, "its receive queue is exhausted"),
        (fake_verbs.REM_ACCESS, "remote access error"),
        (21, r"general error of the device \(status 21\)"),
    ],
)
def test_a_failed_write_ends_the_connection_by_name(
    rdma, fabric, options, status, reason
):
    pair = Pair(rdma, options)
    fabric.on_post = failing(status, after=2)
    with pytest.raises(PeerLostError, match="status"):
        any(pair.write(index % NUM) for index in range(1000))
    events = drained(pair.far)
    assert re.search(reason, str(pair.near.next("lost")) + str(events[-1][1]))
    assert len(events) - 1 == pair.num_slots, "each slot is given back, once"
    pair.connection.close()


def drained(recorder):
    """What happened until the loss, which is the last."""
    events = [recorder.events.get(timeout=10)]
    while events[-1][0] != "lost":
        events.append(recorder.events.get(timeout=10))
    return events


def test_a_wrong_key_ends_both_sides_and_changes_nothing(rdma, fabric):
    pair = Pair(rdma)

    def forge(qp, request):
        if request.opcode == fake_verbs.WRITE_IMM:
            request.remote = request.remote[0] ^ 0xFF00, request.remote[1]

    fabric.on_post = forge
    pair.write(1)
    assert "remote access error" in str(pair.near.next("lost"))
    assert pair.far.next("failed") == 1
    assert "access error" in str(pair.far.next("lost"))
    assert not any(pair.target.view)


def test_a_slot_is_given_back_when_no_peer_can_write_to_it_any_more(rdma, fabric):
    pair = Pair(rdma)
    fabric.on_post = lambda qp, request: (
        fake_verbs.SUCCESS if request.opcode == fake_verbs.WRITE_IMM else None
    )
    states = []
    failed = pair.shelf.failed
    queue_pairs = [fabric.qps[pair.back.link.queue_pairs[0].number]]
    pair.shelf.failed = lambda *call: (
        states.extend(qp.is_open for qp in queue_pairs),
        failed(*call),
    )
    pair.write(3)
    pair.connection.close()
    assert pair.far.next("failed") == 3
    assert states == [False]
    pair.far.next("lost")


def test_a_peer_that_dies_is_noticed_at_once(rdma):
    pair = Pair(rdma)
    pair.connection.send_message(b"last words")
    assert pair.far.next("message")[0] == b"last words"
    sock = pair.connection.link.channel._socket
    sock.shutdown(socket.SHUT_RDWR)
    assert "closed the connection" in str(pair.far.next("lost"))
    pair.near.next("lost")


def test_a_device_that_fails_ends_its_connections(rdma, fabric):
    pair = Pair(rdma)
    pair.connection.link.queue_pairs[0].rail.context.tell(8)
    assert "the device failed" in str(pair.near.next("lost"))
    assert "the device failed" in str(pair.far.next("lost"))


def test_a_port_that_goes_down_and_up_ends_nothing(rdma, fabric):
    pair = Pair(rdma)
    for kind in (10, 9):
        pair.connection.link.queue_pairs[0].rail.context.tell(kind)
    pair.write_all()
    pair.assert_all_landed()


def test_there_are_so_many_connections_and_no_more(rdma):
    one = RdmaOptions(connections=1)
    pair = Pair(rdma, one)
    others = rdma.open("c")
    with pytest.raises(TransportError, match="1 RDMA connections and room for no more"):
        others.connect(pair.listener.address, rdma.recorder())
    pair.connection.close()
    pair.far.next("lost")
    others.connect(pair.listener.address, rdma.recorder())
    pair.far.next("opened")


def test_a_small_device_has_fewer_connections(rdma, fabric):
    fabric.max_cqe = 300
    pair = Pair(rdma)
    pair.write_all()
    pair.assert_all_landed()
    pair.here.connect(pair.listener.address, rdma.recorder())
    with pytest.raises(TransportError, match="room for no more"):
        pair.here.connect(pair.listener.address, rdma.recorder())


def test_buffers_serve_one_connection_after_the_other(rdma):
    pair = Pair(rdma)
    for _ in range(20):
        again = pair.here.connect(pair.listener.address, pair.near)
        pair.far.next("opened")
        again.send_message(b"", bytes(100_000))
        pair.far.next("message")
        again.close()
        pair.far.next("lost")
    rail = pair.back.link.queue_pairs[0].rail
    assert len(rail._requests) <= 2 * pair.back.link.limits.stream_rail_buffers
    pair.write_all()
    pair.assert_all_landed()


@pytest.mark.parametrize(("listens", "calls"), [("rdma", "tcp"), ("tcp", "rdma")])
def test_who_has_no_rdma_is_talked_to_by_tcp(rdma, listens, calls):
    tcp = Net("tcp")
    nets = {"rdma": rdma, "tcp": tcp}
    far = rdma.recorder()
    listener = nets[listens].open("b").listen(f"{listens}://127.0.0.1:0", far)
    connection = nets[calls].open("a").connect(listener.address, rdma.recorder())
    connection.send_message(b"hello")
    assert far.next("opened").peer == "a"
    assert far.next("message")[0] == b"hello"
    tcp.close()


class Shared(DeviceSpan):
    """Memory that is exported by a descriptor."""

    def __init__(self, fd, start=0, nbytes=NUM * SIZE):
        self.mapping = mmap.mmap(fd, NUM * SIZE)
        self.view = memoryview(self.mapping)[start : start + nbytes]

    @property
    def address(self):
        return ctypes.addressof(ctypes.c_char.from_buffer(self.view))

    @property
    def nbytes(self):
        return self.view.nbytes

    def read(self):
        return memoryview(bytes(self.view))

    def write(self, data):
        raise AssertionError("the device writes here by itself")

    def part(self, start, nbytes):
        span = object.__new__(Shared)
        span.mapping, span.view = self.mapping, self.view[start : start + nbytes]
        return span


@pytest.mark.parametrize("way", ["dmabuf", "peermem"])
def test_chunks_land_in_the_memory_of_an_accelerator(rdma, way):
    fd = os.memfd_create("accelerator")
    os.ftruncate(fd, NUM * SIZE)
    memory = Shared(fd)
    pair = Pair(rdma)
    exported = fd if way == "dmabuf" else -1
    assert pair.there.register_device(memory, lambda: exported) == way
    os.close(fd)
    pair.shelf.slot = lambda _, chunk: memory.part(chunk * SIZE, SIZE)
    pair.write_all()
    assert [pair.far.next("landed") for _ in range(NUM)] == list(range(NUM))
    assert memory.view == pair.source.view


@pytest.mark.parametrize("pulls", [False, True])
def test_memory_may_be_told_of_after_it_is_first_used(rdma, pulls):
    pair = Pair(rdma, RdmaOptions(devices=BOTH, pulls=pulls))
    link = (pair.connection if pulls else pair.back).link
    held = []
    link.channel.tell = held.append
    if pulls:
        pair.source = Store(pair.here, is_full=True)
    else:
        pair.target = Store(pair.there)
    pair.write_all()
    assert pair.far.events.empty()
    for note in held:
        SideChannel.tell(link.channel, note)
    pair.assert_all_landed()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_the_poller_fails_nobody_waits_for_it(rdma):
    pair = Pair(rdma)
    rail = pair.connection.link.queue_pairs[0].rail

    def poll():
        raise OSError("no such device")

    rail.poll = poll
    pair.back.send_message(b"wake up")
    assert "polling for completions failed" in str(pair.near.next("lost"))
    pair.far.next("lost")
    with pytest.raises(TransportError, match="RDMA has failed in this process"):
        pair.here.connect(pair.listener.address, pair.near)


@pytest.mark.parametrize("is_closed_first", [False, True])
def test_a_queue_pair_that_takes_nothing_more_ends_the_connection(
    rdma, fabric, is_closed_first
):
    pair = Pair(rdma)
    pair.connection.send_message(b"still")
    assert pair.far.next("message")[0] == b"still"

    def refuse(qp, request):
        raise fake_verbs.PyverbsError("Failed to post send")

    fabric.on_post = refuse
    if not is_closed_first:
        with contextlib.suppress(PeerLostError):
            pair.connection.send_message(b"no more")
    pair.connection.close()
    pair.far.next("lost")
