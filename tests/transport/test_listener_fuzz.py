"""A port that anyone may write rubbish to goes on serving its cluster."""

import contextlib
import random
import socket

import pytest

from jscale.core.errors import PeerLostError
from jscale.core.ids import WorkerId
from jscale.transport import handshake
from jscale.transport.base import Hello
from jscale.transport.checksum import crc32c
from jscale.transport.framing import (
    HEAD_SIZE_BYTES,
    Frame,
    FrameKind,
    decode_head,
    encode_head,
)
from jscale.transport.handshake import Introduction
from jscale.transport.rdma_endpoint import Endpoint, RailEndpoint, encode_note
from jscale.transport.sockets import parse_address
from tests.rdma.devices import DEVICES
from tests.transport.conftest import opened_and_closed
from tests.transport.mutation import mutations

PATIENCE_S = 20.0
NUM_ROUNDS = 60
NONCE = b"n" * handshake.NONCE_SIZE_BYTES


def framed(kind, header=b"", payload=b"", **numbers):
    frame = Frame(
        kind=kind,
        header_size_bytes=len(header),
        payload_size_bytes=len(payload),
        crc32c=crc32c(payload, header),
        **numbers,
    )
    return encode_head(frame) + header + payload


HELLO = framed(FrameKind.HELLO, *Introduction(WorkerId("stranger"), NONCE).encode())
MESSAGES = [b"%d" % number * (number + 1) for number in range(6)]
STREAM = b"".join(
    framed(FrameKind.MESSAGE, b"%d" % number, payload)
    + framed(FrameKind.CHUNK, payload=b"c" * 1000, plan=7, chunk=number % 4)
    for number, payload in enumerate(MESSAGES)
)


def rubbish():
    rng = random.Random(4)
    return [rng.randbytes(rng.randint(1, 300)) for _ in range(NUM_ROUNDS)]


@pytest.fixture(params=["tcp", "rdma"])
def port(request):
    """Transports that listen at a TCP port, whatever they speak after the proof."""
    if request.param == "rdma" and not DEVICES:
        request.getfixturevalue("fabric")
    yield from opened_and_closed(request.param)


@pytest.mark.parametrize(
    "strangers",
    [rubbish(), list(mutations(HELLO, NUM_ROUNDS)), [HELLO + STREAM] * 5],
    ids=["rubbish", "changed hellos", "no proof"],
)
def test_strangers_harm_nobody(port, strangers):
    far = port.recorder()
    listener = port.open("b").listen(port.any_address, far)
    known = port.open("a").connect(listener.address, port.recorder())
    far.next("opened")
    for said in strangers:
        with called(listener.address) as sock:
            say(sock, said)
            hear_until_it_ends(sock)
    known.send_message(b"still here")
    assert far.next("message")[0] == b"still here"
    port.open("c").connect(listener.address, port.recorder())
    assert far.next("opened").peer == "c"


def test_a_caller_whose_queue_pairs_are_damaged_is_refused(fabric):
    """It has proved who it is, and says what nobody understands."""
    note = encode_note(Endpoint((RailEndpoint(bytes(16), 0, 17, 5, 5, 16),)))
    for net in opened_and_closed("rdma"):
        far = net.recorder()
        listener = net.open("b").listen(net.any_address, far)
        for said in mutations(note, NUM_ROUNDS):
            with called(listener.address) as sock:
                prove(sock, Hello(WorkerId("a"), b"secret"), "rdma")
                say(sock, said)
                hear_until_it_ends(sock)
        assert far.events.empty()
        net.open("c").connect(listener.address, net.recorder())
        assert far.next("opened").peer == "c"


@pytest.mark.parametrize("seed", range(3))
def test_of_a_damaged_stream_only_what_was_sent_is_delivered(tcp, seed):
    far = tcp.recorder()
    far.landings[7] = shelf = tcp.shelf(far)
    shelf.landed = lambda _, chunk: far.events.put(("landed", shelf.bytes_of(chunk)))
    listener = tcp.open("b").listen(tcp.any_address, far)
    for stream in mutations(STREAM, NUM_ROUNDS, seed):
        with called(listener.address) as sock:
            prove(sock, Hello(WorkerId("a"), b"secret"))
            far.next("opened")
            say(sock, stream)
            hear_until_it_ends(sock)
        left = list(MESSAGES)
        while (event := far.events.get(timeout=PATIENCE_S))[0] != "lost":
            if event[0] == "message":
                left = left[left.index(bytes(event[2])) :]  # In order, some missing.
            elif event[0] == "landed":
                assert event[1] == b"c" * 1000
            else:
                assert event[0] == "failed"
        assert isinstance(event[1], PeerLostError)
    tcp.open("c").connect(listener.address, tcp.recorder())
    assert far.next("opened").peer == "c"


def called(address):
    return socket.create_connection(parse_address(address), timeout=PATIENCE_S)


def prove(sock, hello, scheme="tcp"):
    """The caller's part of the handshake, by hand."""
    caller = Introduction(hello.worker, NONCE, scheme=scheme)
    sock.sendall(framed(FrameKind.HELLO, *caller.encode()))
    frame = decode_head(sock.recv(HEAD_SIZE_BYTES, socket.MSG_WAITALL))
    header = sock.recv(frame.header_size_bytes, socket.MSG_WAITALL)
    payload = sock.recv(frame.payload_size_bytes, socket.MSG_WAITALL)
    listener = Introduction.decode(header, payload)
    confirmation = handshake.confirm(hello, NONCE, listener, scheme)
    sock.sendall(framed(FrameKind.HELLO, *confirmation.encode()))


def say(sock, data):
    with contextlib.suppress(OSError):  # We may be turned away at any moment.
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)


def hear_until_it_ends(sock):
    with contextlib.suppress(ConnectionError):
        while sock.recv(4096):
            pass
