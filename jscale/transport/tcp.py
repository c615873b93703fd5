"""`tcp://host:port`: the portable default."""

import socket
import threading

from absl import logging

from jscale.core.errors import TransportError
from jscale.core.ids import WorkerId
from jscale.transport.base import (
    Connection,
    Handler,
    Listener,
    Transport,
    TransportConfig,
)
from jscale.transport.meeting import call, meet
from jscale.transport.sockets import tune
from jscale.transport.tcp_connection import TcpConnection
from jscale.transport.tcp_listener import TcpListener

SCHEME = "tcp"


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
        sock, peer = call(address, self._config, scheme=SCHEME)
        return self.adopt(sock, peer, handler, is_accepted=False)

    def adopt(
        self,
        sock: socket.socket,
        peer: WorkerId,
        handler: Handler,
        *,
        is_accepted: bool,
    ) -> TcpConnection:
        """A connection on a socket whose two ends know each other.

        Raises:
          TransportError: this transport is closed; so is the socket now.
        """
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
            caller = meet(sock, self._config, schemes=(SCHEME,))
        except TransportError as error:
            logging.warning("refused a caller: %s", error)
            sock.close()
            return
        peer = caller.worker
        try:
            self.adopt(sock, peer, handler, is_accepted=True)
        except TransportError as error:
            logging.info("refused %s: %s", peer, error)

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            self._connections.discard(connection)
