"""How two processes meet at a TCP port: whatever they speak afterwards starts here."""

import os
import socket
import time
from collections.abc import Collection

from jscale.core.errors import TransportError
from jscale.core.ids import WorkerId
from jscale.transport import handshake
from jscale.transport.base import TransportConfig
from jscale.transport.checksum import crc32c
from jscale.transport.framing import (
    HEAD_SIZE_BYTES,
    Frame,
    FrameKind,
    decode_head,
    encode_head,
)
from jscale.transport.handshake import Introduction
from jscale.transport.sockets import parse_address, receive_into, send_all


def call(
    address: str, config: TransportConfig, *, scheme: str
) -> tuple[socket.socket, WorkerId]:
    """A socket to whoever listens there, and who it proved to be.

    Raises:
      TransportError: nothing listens there, or it is not of our cluster.
    """
    try:
        sock = socket.create_connection(
            parse_address(address), timeout=config.timeout_s
        )
    except OSError as error:
        raise TransportError(
            f"cannot connect to {address}: {error}; is it running?"
        ) from error
    try:
        return sock, _prove(sock, config, scheme)
    except TransportError as error:
        sock.close()
        raise TransportError(f"cannot connect to {address}: {error}") from error


def meet(
    sock: socket.socket, config: TransportConfig, *, schemes: Collection[str]
) -> Introduction:
    """Who calls, after proving to each other that we are of one cluster.

    Args:
      sock: on which it has called.
      config: ours.
      schemes: what may be spoken.

    Raises:
      TransportError: it is not of our cluster, or wants to speak something else.
    """
    deadline_s = time.monotonic() + config.timeout_s
    nonce = os.urandom(handshake.NONCE_SIZE_BYTES)
    caller = _hear(sock, deadline_s)
    _say(sock, handshake.answer(config.hello, nonce, caller))
    caller = _hear(sock, deadline_s)
    handshake.accept(config.hello, nonce, caller)
    if caller.scheme not in schemes:
        raise TransportError(
            f"{caller.worker!r} wants {caller.scheme}, which is not spoken here: "
            f"only {' and '.join(schemes)}"
        )
    return caller


def _prove(sock: socket.socket, config: TransportConfig, scheme: str) -> WorkerId:
    deadline_s = time.monotonic() + config.timeout_s
    nonce = os.urandom(handshake.NONCE_SIZE_BYTES)
    _say(sock, Introduction(config.hello.worker, nonce, scheme=scheme))
    listener = _hear(sock, deadline_s)
    _say(sock, handshake.confirm(config.hello, nonce, listener, scheme))
    return listener.worker


def _say(sock: socket.socket, introduction: Introduction) -> None:
    header, payload = introduction.encode()
    frame = Frame(
        kind=FrameKind.HELLO,
        header_size_bytes=len(header),
        payload_size_bytes=len(payload),
        crc32c=crc32c(payload, header),
    )
    send_all(sock, [memoryview(encode_head(frame) + header + payload)])


def _hear(sock: socket.socket, deadline_s: float) -> Introduction:
    head = bytearray(HEAD_SIZE_BYTES)
    receive_into(sock, memoryview(head), deadline_s=deadline_s)
    frame = decode_head(bytes(head))
    if frame.kind is not FrameKind.HELLO:
        raise TransportError(f"{frame.kind.name} frame before the hello")
    said = bytearray(frame.header_size_bytes + frame.payload_size_bytes)
    receive_into(sock, memoryview(said), deadline_s=deadline_s)
    header = bytes(said[: frame.header_size_bytes])
    payload = bytes(said[frame.header_size_bytes :])
    if crc32c(payload, header) != frame.crc32c:
        raise TransportError("a damaged hello")
    return Introduction.decode(header, payload)
