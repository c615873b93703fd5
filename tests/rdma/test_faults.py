"""What goes wrong with RDMA: each ends in a named error, or is recovered from."""

import contextlib
import dataclasses
import os
import socket
import threading

import pytest

from jscale.core.errors import PeerLostError
from tests.rdma.chunks import CHUNK_SIZE_BYTES, NUM_CHUNKS, PLAN
from tests.rdma.devices import device_errors, require_devices
from tests.rdma.line import MANY, Line, events_until_lost, nothing_is_wrong
from tests.rdma.processes import Child, children
from tests.transport.conftest import PATIENCE_S, Recorder

require_devices()
pytestmark = [pytest.mark.rdma, pytest.mark.timeout(90)]


def test_a_sender_killed_in_mid_write_is_lost_and_its_slots_come_back(net):
    line = Line(net)
    assert line.works()
    with children() as made:
        writer = Child("tests.rdma.writer", line.listener.address, next(net.devices))
        made.append(writer)
        line.far.next("opened")
        for _ in range(2 * NUM_CHUNKS):
            line.far.next("right")
        writer.kill()
        seen, reason = events_until_lost(line.far)
    assert "connection to writer" in reason
    assert nothing_is_wrong(seen)
    assert not line.shelf.taken
    assert line.works()  # The first connection never noticed.


def test_a_receiver_killed_in_mid_write_is_lost(net):
    line = Line(net)
    with children() as made:
        reader = Child("tests.rdma.reader", next(net.devices))
        made.append(reader)
        other = line.sender.connect(reader.hear(), line.near)
        killed = threading.Event()

        def kill():
            for _ in range(2 * NUM_CHUNKS):
                reader.hear()
            reader.kill()
            killed.set()

        threading.Thread(target=kill, daemon=True).start()
        with pytest.raises(PeerLostError, match="connection to reader"):
            line.write(MANY, other)
        assert killed.wait(PATIENCE_S)
    assert "connection to reader" in str(line.near.next("lost"))
    assert line.works()


@pytest.mark.parametrize("side", ["sender", "receiver"])
def test_a_queue_pair_that_fails_ends_the_connection(net, side):
    line = Line(net)
    assert line.works()
    connection = line.connection if side == "sender" else line.back
    for queue_pair in connection.link.queue_pairs:
        queue_pair.stop()  # What a device does to one that it finds in error.
    with contextlib.suppress(PeerLostError):
        line.write(MANY)
    line.near.next("lost")
    seen, _ = events_until_lost(line.far)
    assert nothing_is_wrong(seen)
    assert not line.shelf.taken
    line.connect()
    assert line.works()


@pytest.mark.parametrize("side", ["sender", "receiver"])
def test_a_socket_that_is_cut_ends_the_connection_beside_it(net, side):
    """It is the sign of life of a peer that says nothing by RDMA."""
    line = Line(net)
    assert line.works()
    connection = line.connection if side == "sender" else line.back
    with socket.socket(fileno=os.dup(connection.link.channel.fileno())) as cut:
        cut.shutdown(socket.SHUT_RDWR)
    line.near.next("lost")
    seen, _ = events_until_lost(line.far)
    assert nothing_is_wrong(seen)
    line.connect()
    assert line.works()


def test_a_wrong_key_opens_nothing_and_is_named(net):
    line = Line(net)
    assert line.works()
    before = bytes(line.shelf.memory)
    regions = line.connection.link._offers._regions
    for number, region in regions.items():
        wrong = tuple(rkey ^ 0xFF for rkey in region.rkeys)
        regions[number] = dataclasses.replace(region, rkeys=wrong)
    line.write(1)
    assert "a wrong key" in str(line.near.next("lost"))
    seen, reason = events_until_lost(line.far)
    assert seen == [("failed", 0)]
    assert reason
    assert bytes(line.shelf.memory)[CHUNK_SIZE_BYTES:] == before[CHUNK_SIZE_BYTES:]
    assert not any(line.shelf.place(0))
    line.connect()
    assert line.works()


def test_bytes_that_change_after_the_checksum_never_land(net):
    line = Line(net)
    line.far.hold.clear()  # The receive thread answers no offer meanwhile.
    line.connection.send_message(b"stop here")
    for chunk in range(4):
        line.connection.write_chunk(PLAN, chunk, line.view(chunk))
    for chunk in (1, 3):
        line.view(chunk)[chunk] ^= 1
    line.far.hold.set()
    line.far.next("message")
    assert line.far.next("right") == 0
    assert line.far.next("failed") == 1
    assert line.far.next("right") == 2
    assert line.far.next("failed") == 3
    for chunk in (1, 3):
        line.view(chunk)[chunk] ^= 1
    assert line.works()


def test_a_lying_checksum_costs_only_its_chunk(net, lying_checksum):
    line = Line(net, checksum=lying_checksum(2))
    line.write(4)
    how = [line.far.events.get(timeout=PATIENCE_S) for _ in range(4)]
    assert how == [("right", 0), ("right", 1), ("failed", 2), ("right", 3)]


def test_a_receiver_that_reads_nothing_is_lost_and_its_queue_never_overruns(net):
    line = Line(net, timeout_s=1.0)
    before = device_errors("rcvd_rnr_err")
    line.far.hold.clear()
    line.connection.send_message(b"stop here")
    with pytest.raises(PeerLostError, match="nothing for too long"):
        any(line.connection.send_message(b"", bytes(10_000)) for _ in range(MANY))
    line.near.next("lost")
    assert device_errors("rcvd_rnr_err") == before
    line.far.hold.set()
    events_until_lost(line.far)
    line.connect()
    assert line.works()


class Choosy(Recorder):
    """Takes no message of `a` until it may."""

    def message(self, connection, header, payload):
        if connection.peer == "a":
            self.hold.wait(PATIENCE_S)
        self.events.put(("message", header, payload))


def test_one_who_is_not_read_takes_no_buffers_from_another(net):
    far = Choosy()
    far.hold.clear()
    listener = net.open("b").listen(net.any_address, far)
    blocked = net.open("a", timeout_s=60.0).connect(listener.address, Recorder())
    assert far.next("opened").peer == "a"
    other = net.open("c").connect(listener.address, Recorder())
    assert far.next("opened").peer == "c"
    is_lost = threading.Event()

    def send():
        with contextlib.suppress(PeerLostError):
            for _ in range(MANY):
                blocked.send_message(b"a", bytes(10_000))
        is_lost.set()

    thread = threading.Thread(target=send)
    thread.start()
    for number in range(300):
        other.send_message(b"%d" % number, bytes(10_000))
        assert far.next("message")[0] == b"%d" % number
    assert not is_lost.is_set()
    blocked.close()
    far.hold.set()
    thread.join(PATIENCE_S)
    assert is_lost.is_set()
