"""`mem://name`: within one process, for tests; it copies, bounds and fails alike."""

import itertools
import threading

from jscale.core.errors import TransportError
from jscale.core.ids import WorkerId
from jscale.transport.base import (
    Connection,
    Handler,
    Listener,
    Transport,
    TransportConfig,
)
from jscale.transport.mem_connection import MemConnection
from jscale.transport.mem_pipe import Pipe

_ANY_NAME = "0"
"""As port 0: the listener gets a name that nobody has."""

_listeners: dict[str, "MemListener"] = {}
_listeners_lock = threading.Lock()
_names = itertools.count(1)


class MemTransport(Transport):
    """Listeners and connections within this process. Thread-safe."""

    def __init__(self, config: TransportConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._is_closed = False
        self._listeners: list[MemListener] = []
        self._connections: set[Connection] = set()

    @property
    def config(self) -> TransportConfig:
        """What this side's connections share."""
        return self._config

    def register(self, memory: memoryview) -> None:
        """See `Transport.register`."""
        del memory

    def listen(self, address: str, handler: Handler) -> Listener:
        """See `Transport.listen`; the name `0` means any."""
        name = _parse(address)
        with _listeners_lock:
            if name == _ANY_NAME:
                name = f"any-{next(_names)}"
            if name in _listeners:
                raise TransportError(
                    f"cannot listen on {address}: in use; choose another name, "
                    f"or {_ANY_NAME} for any"
                )
            listener = _listeners[name] = MemListener(name, self, handler)
        with self._lock:
            self._listeners.append(listener)
        return listener

    def connect(self, address: str, handler: Handler) -> Connection:
        """See `Transport.connect`."""
        with _listeners_lock:
            listener = _listeners.get(_parse(address))
        if listener is None:
            raise TransportError(
                f"cannot connect to {address}: nobody listens; is it running?"
            )
        listener_hello = listener.transport.config.hello
        if listener_hello.token != self._config.hello.token:
            raise TransportError(
                f"cannot connect to {address}: {listener_hello.worker!r} has another "
                "cluster token; start it with the token of this cluster"
            )
        there = Pipe(self._config.timeout_s)
        back = Pipe(listener.transport.config.timeout_s)
        listener.transport.open(
            incoming=there,
            outgoing=back,
            peer=self._config.hello.worker,
            handler=listener.handler,
            is_accepted=True,
        )
        return self.open(
            incoming=back,
            outgoing=there,
            peer=listener_hello.worker,
            handler=handler,
            is_accepted=False,
        )

    def open(
        self,
        *,
        incoming: Pipe,
        outgoing: Pipe,
        peer: WorkerId,
        handler: Handler,
        is_accepted: bool,
    ) -> MemConnection:
        """This side of a connection, receiving already.

        Raises:
          TransportError: this transport is closed; so are the pipes now.
        """
        connection = MemConnection(
            incoming,
            outgoing,
            peer,
            handler,
            self._config,
            is_accepted=is_accepted,
            on_ended=self._forget,
        )
        with self._lock:
            if self._is_closed:
                incoming.close()
                outgoing.close()
                raise TransportError("this transport is closed")
            self._connections.add(connection)
            connection.start()
        return connection

    def close(self) -> None:
        """See `Transport.close`."""
        with self._lock:
            self._is_closed = True
            listeners, self._listeners = self._listeners, []
            connections = list(self._connections)
        for listener in listeners:
            listener.close()
        for connection in connections:
            connection.close()

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            self._connections.discard(connection)


class MemListener(Listener):
    """A name that `connect` finds. Immutable, but for being listed or not."""

    def __init__(self, name: str, transport: MemTransport, handler: Handler) -> None:
        self._name = name
        self.transport = transport
        self.handler = handler

    @property
    def address(self) -> str:
        """See `Listener.address`."""
        return f"mem://{self._name}"

    def close(self) -> None:
        """See `Listener.close`."""
        with _listeners_lock:
            if _listeners.get(self._name) is self:
                del _listeners[self._name]


def _parse(address: str) -> str:
    scheme, _, name = address.partition("://")
    if scheme != "mem" or not name:
        raise TransportError(f"address {address!r} is not of the form mem://name")
    return name
