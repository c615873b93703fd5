"""What only TCP can suffer: strangers, rubbish, cut wires."""

import contextlib
import errno
import socket
import threading

import pytest

from jscale.core.errors import TransportError
from jscale.transport.framing import Frame, FrameKind, encode_head
from jscale.transport.sockets import format_address, parse_address

PATIENCE_S = 20.0


@contextlib.contextmanager
def cutting_proxy(address, num_bytes):
    """An address that leads to the other, and is cut after so many bytes there."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def carry():
            near, _ = server.accept()
            with near, socket.create_connection(parse_address(address)) as far:
                back = threading.Thread(target=pump, args=(far, near, 1 << 40))
                back.start()
                pump(near, far, num_bytes)
                for end in (near, far):
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                back.join()

        thread = threading.Thread(target=carry)
        thread.start()
        yield format_address(server.getsockname())
        thread.join(PATIENCE_S)


def pump(source, target, num_bytes):
    with contextlib.suppress(OSError):
        while num_bytes and (data := source.recv(min(num_bytes, 4096))):
            target.sendall(data)
            num_bytes -= len(data)


def test_a_connection_cut_within_a_chunk_gives_the_slot_back(tcp):
    near, far = tcp.recorder(), tcp.recorder()
    far.landings[7] = tcp.shelf(far, chunk_size_bytes=500_000)
    listener = tcp.open("b").listen(tcp.any_address, far)
    with cutting_proxy(listener.address, 100_000) as address:
        connection = tcp.open("a").connect(address, near)
        far.next("opened")
        with contextlib.suppress(TransportError):
            connection.write_chunk(7, 1, memoryview(bytes(500_000)))
        assert far.next("failed") == 1
        far.next("lost")
        near.next("lost")


@pytest.mark.parametrize(
    "rubbish",
    [
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        encode_head(Frame(kind=FrameKind.CHUNK, payload_size_bytes=10)) + b"x" * 10,
        encode_head(Frame(kind=FrameKind.HELLO, header_size_bytes=1)) + b"a",
        b"",
    ],
)
def test_strangers_are_turned_away_and_harm_nobody(tcp, rubbish):
    far = tcp.recorder()
    listener = tcp.open("b").listen(tcp.any_address, far)
    with socket.create_connection(parse_address(listener.address)) as stranger:
        stranger.settimeout(PATIENCE_S)
        with contextlib.suppress(OSError):  # It may be turned away at any moment.
            stranger.sendall(rubbish)
            stranger.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while stranger.recv(4096):
                pass
    connection = tcp.open("a").connect(listener.address, tcp.recorder())
    connection.send_message(b"hello")
    far.next("opened")
    assert far.next("message")[0] == b"hello"


def test_a_listener_that_says_nothing_is_given_up(tcp):
    transport = tcp.open("a", timeout_s=0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = format_address(silent.getsockname())
        with pytest.raises(TransportError, match="it said nothing for too long"):
            transport.connect(address, tcp.recorder())


def test_a_listener_of_another_kind_is_named(tcp):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            caller, _ = server.accept()
            with caller:
                caller.recv(4096)
                caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 2)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(TransportError, match="does not speak this protocol"):
            tcp.open("a").connect(format_address(server.getsockname()), tcp.recorder())
        thread.join()


def test_a_port_in_use_says_so(tcp):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = format_address(other.getsockname())
        with pytest.raises(TransportError, match=r"in use.*choose another port"):
            tcp.open("a").listen(address, tcp.recorder())


def test_a_caller_that_the_system_could_not_take_is_taken_later(tcp, monkeypatch):
    accept = socket.socket.accept
    is_short = iter([True])

    def accept_later(sock):
        if next(is_short, False):
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", accept_later)
    listener = tcp.open("b").listen("tcp://127.0.0.1:0", tcp.recorder())
    tcp.open("a").connect(listener.address, tcp.recorder())


def test_a_version_6_address_works(tcp):
    try:
        listener = tcp.open("b").listen("tcp://[::1]:0", tcp.recorder())
    except TransportError:
        pytest.skip("no IPv6 here")
    assert listener.address.startswith("tcp://[::1]:")
    tcp.open("a").connect(listener.address, tcp.recorder())


@pytest.mark.parametrize(
    "address", ["tcp://here", "tcp://:1", "tcp://a:b", "tcp://a:99999"]
)
def test_malformed_addresses_are_named(address):
    with pytest.raises(TransportError, match=address):
        parse_address(address)
