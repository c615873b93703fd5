"""A TCP port: a thread that accepts, and one for each caller not yet known."""

import contextlib
import socket
import threading
from collections.abc import Callable

from absl import logging

from jscale.core.errors import TransportError
from jscale.transport.base import Listener
from jscale.transport.sockets import format_address, parse_address

STRANGERS_MAX = 128
"""Callers in the handshake at once; more are turned away."""

_RETRY_S = 0.1
"""After the system could not take a caller."""


class TcpListener(Listener):
    """Listens from construction on.

    `welcome(socket)` is called on a thread of its own for each caller; it owns the
    socket from then on, and must return within a bounded time.
    """

    def __init__(
        self,
        address: str,
        welcome: Callable[[socket.socket], None],
        *,
        scheme: str = "tcp",
    ) -> None:
        self._socket = _bind(address)
        self._welcome = welcome
        host, port = self._socket.getsockname()[:2]
        self._address = format_address((host, port), scheme)
        self._closing = threading.Event()
        self._strangers: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(
            target=self._accept, name=f"tcp-accept-{port}", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> str:
        """See `Listener.address`."""
        return self._address

    def close(self) -> None:
        """See `Listener.close`; waits for handshakes that have begun."""
        self._closing.set()
        with contextlib.suppress(OSError):  # Closed by an earlier call.
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        with self._lock:
            strangers = list(self._strangers)
        for thread in strangers:
            thread.join()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = self._socket.accept()
            except OSError as error:  # Descriptors are short, or a caller has gone.
                if not self._closing.wait(_RETRY_S):
                    logging.log_every_n_seconds(
                        logging.ERROR, "accept at %s: %s", 10, self._address, error
                    )
                continue
            thread = threading.Thread(
                target=self._meet, args=(sock,), name="tcp-meet", daemon=True
            )
            with self._lock:
                is_full = len(self._strangers) >= STRANGERS_MAX
                if not is_full:
                    self._strangers.add(thread)
            if is_full:
                sock.close()
            else:
                thread.start()

    def _meet(self, sock: socket.socket) -> None:
        try:
            self._welcome(sock)
        finally:
            with self._lock:
                self._strangers.discard(threading.current_thread())


def _bind(address: str) -> socket.socket:
    host, port = parse_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise TransportError(
            f"cannot listen on {address}: {error}; choose another port, or 0 for any"
        ) from error
