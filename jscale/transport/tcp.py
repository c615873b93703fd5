"""`tcp://host:port`: the portable default."""

import os
import socket
import threading
import time

from absl import logging

from jscale.core.errors import TransportError
from jscale.core.ids import WorkerId
from jscale.transport import handshake
from jscale.transport.base import (
    Connection,
    Handler,
    Listener,
    Transport,
    TransportConfig,
)
from jscale.transport.checksum import crc32c
from jscale.transport.framing import (
    HEAD_SIZE_BYTES,
    Frame,
    FrameKind,
    decode_head,
    encode_head,
)
from jscale.transport.handshake import Introduction
from jscale.transport.sockets import parse_address, receive_into, send_all, tune
from jscale.transport.tcp_connection import TcpConnection
from jscale.transport.tcp_listener import TcpListener


class TcpTransport(Transport):
    """Listeners and connections over TCP. Thread-safe."""

    def __init__(self, config: TransportConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._is_closed = False
        self._listeners: list[TcpListener] = []
        self._connections: set[Connection] = set()

    def register(self, memory: memoryview) -> None:
        """See `Transport.register`; the kernel takes any memory."""
        del memory

    def listen(self, address: str, handler: Handler) -> Listener:
        """See `Transport.listen`."""
        listener = TcpListener(address, lambda sock: self._welcome(sock, handler))
        with self._lock:
            self._listeners.append(listener)
        return listener

    def connect(self, address: str, handler: Handler) -> Connection:
        """See `Transport.connect`."""
        try:
            sock = socket.create_connection(
                parse_address(address), timeout=self._config.timeout_s
            )
        except OSError as error:
            raise TransportError(
                f"cannot connect to {address}: {error}; is it running?"
            ) from error
        try:
            peer = _call(sock, self._config)
        except TransportError as error:
            sock.close()
            raise TransportError(f"cannot connect to {address}: {error}") from error
        return self._open(sock, peer, handler, is_accepted=False)

    def close(self) -> None:
        """See `Transport.close`."""
        with self._lock:
            self._is_closed = True
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.close()

    def _welcome(self, sock: socket.socket, handler: Handler) -> None:
        try:
            peer = _answer(sock, self._config)
        except TransportError as error:
            logging.warning("refused a caller: %s", error)
            sock.close()
            return
        try:
            self._open(sock, peer, handler, is_accepted=True)
        except TransportError as error:
            logging.info("refused %s: %s", peer, error)

    def _open(
        self,
        sock: socket.socket,
        peer: WorkerId,
        handler: Handler,
        *,
        is_accepted: bool,
    ) -> TcpConnection:
        tune(sock, self._config.timeout_s)
        connection = TcpConnection(
            sock,
            peer,
            handler,
            self._config,
            is_accepted=is_accepted,
            on_ended=self._forget,
        )
        with self._lock:
            if self._is_closed:
                sock.close()
                raise TransportError("this transport is closed")
            self._connections.add(connection)
            connection.start()
        return connection

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            self._connections.discard(connection)


def _call(sock: socket.socket, config: TransportConfig) -> WorkerId:
    """Who listens there, after proving to each other that we are of one cluster."""
    deadline_s = time.monotonic() + config.timeout_s
    nonce = os.urandom(handshake.NONCE_SIZE_BYTES)
    _say(sock, Introduction(config.hello.worker, nonce))
    listener = _hear(sock, deadline_s)
    _say(sock, handshake.confirm(config.hello, nonce, listener))
    return listener.worker


def _answer(sock: socket.socket, config: TransportConfig) -> WorkerId:
    """Who calls, after proving to each other that we are of one cluster."""
    deadline_s = time.monotonic() + config.timeout_s
    nonce = os.urandom(handshake.NONCE_SIZE_BYTES)
    caller = _hear(sock, deadline_s)
    _say(sock, handshake.answer(config.hello, nonce, caller))
    return handshake.accept(config.hello, nonce, _hear(sock, deadline_s))


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
