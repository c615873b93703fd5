"""Plain sockets: addresses, options, and calls that move all bytes or raise."""

import contextlib
import socket
import struct
import time
import urllib.parse

from jscale.core.errors import PeerLostError, TransportError
from jscale.core.units import KIB

UNSENT_BYTES_MAX = 128 * KIB
"""Bytes that the kernel takes ahead of the network. Few, so that chunks leave in the
order of the plan and a sender that switches connections does not fill both."""

SLACK_S = 0.25
"""A sender that waits for a peer gives up this much before the kernel does for all: of
those that use the connection, only it knows what was wrong."""

CONGESTION = b"cubic"
"""Where the system has it. BBR slows each connection to a crawl for 200 ms every 10 s
to measure it anew (8 members, 64 MiB at 400 Mbit/s: 1.06 to 1.24 of size / rate, where
cubic and reno stay within 1.06 and 1.07): one link of a multicast that stops for that
long stops all behind it."""


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of `tcp://host:port`, or of another scheme's like it.

    Raises:
      TransportError: it does not have that form.
    """
    try:
        parts = urllib.parse.urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or port is None:
        raise TransportError(f"address {address!r} is not of the form tcp://host:port")
    return host, port


def format_address(name: tuple[str, int], scheme: str = "tcp") -> str:
    """The address whose host and port these are."""
    host, port = name
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def tune(sock: socket.socket, timeout_s: float) -> None:
    """Sets what every connection wants: no delay, no endless wait for a dead peer."""
    timeout_s_whole = max(1, round(timeout_s))
    seconds = int(timeout_s)
    timeval = struct.pack("ll", seconds, int((timeout_s - seconds) * 1e6))
    tcp = socket.IPPROTO_TCP
    sock.settimeout(None)
    sock.setsockopt(tcp, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_CONGESTION"):
        with contextlib.suppress(OSError):
            sock.setsockopt(tcp, socket.TCP_CONGESTION, CONGESTION)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(tcp, socket.TCP_USER_TIMEOUT, int((timeout_s + SLACK_S) * 1e3))
        sock.setsockopt(tcp, socket.TCP_KEEPIDLE, timeout_s_whole)
        sock.setsockopt(tcp, socket.TCP_KEEPINTVL, timeout_s_whole)
        sock.setsockopt(tcp, socket.TCP_KEEPCNT, 2)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(tcp, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX)


def send_all(sock: socket.socket, parts: list[memoryview]) -> None:
    """Sends the parts one after the other, uncopied, in as few calls as it takes.

    Raises:
      PeerLostError: the peer is gone, or took nothing for SO_SNDTIMEO.
    """
    left = sum(part.nbytes for part in parts)
    while left:
        try:
            sent = sock.sendmsg(parts)
        except (BlockingIOError, TimeoutError) as error:
            raise PeerLostError("it took nothing for too long") from error
        except OSError as error:
            raise PeerLostError(str(error)) from error
        left -= sent
        if left:
            parts = _after(sent, parts)


def _after(sent: int, parts: list[memoryview]) -> list[memoryview]:
    """What follows the first `sent` bytes."""
    rest = []
    for part in parts:
        if sent < part.nbytes:
            rest.append(part[sent:])
        sent = max(0, sent - part.nbytes)
    return rest


def receive_into(
    sock: socket.socket, view: memoryview, *, deadline_s: float | None = None
) -> None:
    """Fills the view, straight from the kernel.

    Args:
      sock: a blocking socket.
      view: writable bytes.
      deadline_s: `time.monotonic()` at which to give up; None: wait as long as the
        peer lives, which keep-alive finds out.

    Raises:
      PeerLostError: the peer is gone, or the deadline has passed.
    """
    while view.nbytes:
        try:
            if deadline_s is not None:
                sock.settimeout(max(1e-3, deadline_s - time.monotonic()))
            size_bytes = sock.recv_into(view, 0, socket.MSG_WAITALL)
        except TimeoutError as error:
            raise PeerLostError("it said nothing for too long") from error
        except OSError as error:
            raise PeerLostError(str(error)) from error
        if size_bytes == 0:
            raise PeerLostError("it closed the connection")
        view = view[size_bytes:]
