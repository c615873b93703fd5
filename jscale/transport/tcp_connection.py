"""One TCP connection: a lock for those who write, a thread that reads."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable

from jscale.core.errors import PeerLostError, TransportError
from jscale.core.ids import WorkerId
from jscale.core.units import NS_PER_S
from jscale.transport.base import Connection, Handler, TransportConfig
from jscale.transport.checksum import Buffer
from jscale.transport.delivery import FrameBody, deliver
from jscale.transport.framing import (
    HEAD_SIZE_BYTES,
    Frame,
    FrameKind,
    decode_head,
    encode_head,
)
from jscale.transport.sockets import receive_into, send_all


class TcpConnection(Connection, FrameBody):
    """A `Connection` on a socket whose handshake is done.

    The socket is closed by the receive thread alone, when no writer is in it, so that
    nobody ever uses a descriptor that the system has given to something else.
    """

    def __init__(
        self,
        sock: socket.socket,
        peer: WorkerId,
        handler: Handler,
        config: TransportConfig,
        *,
        is_accepted: bool,
        on_ended: Callable[["TcpConnection"], None],
    ) -> None:
        self._socket = sock
        self._peer = peer
        self._handler = handler
        self._config = config
        self._is_accepted = is_accepted
        self._on_ended = on_ended
        self._write_lock = threading.Lock()
        self._closing = threading.Event()
        self._lost_reason: str | None = None
        self._thread = threading.Thread(
            target=self._receive, name=f"tcp-receive-{peer}", daemon=True
        )

    def start(self) -> None:
        """Begins to receive; called once, by the transport."""
        self._thread.start()

    @property
    def peer(self) -> WorkerId:
        """Who the other side proved to be."""
        return self._peer

    def send_message(self, header: bytes, payload: Buffer = b"") -> None:
        """See `Connection.send_message`."""
        self._write(FrameKind.MESSAGE, 0, 0, header, payload)

    def write_chunk(self, plan: int, chunk: int, view: memoryview) -> None:
        """See `Connection.write_chunk`."""
        self._write(FrameKind.CHUNK, plan, chunk, b"", view)

    def announce(self, plan: int, held: bytes) -> None:
        """See `Connection.announce`."""
        self._write(FrameKind.ANNOUNCE, plan, 0, b"", held)

    def ask(self, plan: int, chunk: int) -> None:
        """See `Connection.ask`."""
        self._write(FrameKind.ASK, plan, chunk, b"", b"")

    def close(self) -> None:
        """See `Connection.close`."""
        self._closing.set()
        self._shut_down()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def read_into(self, view: memoryview) -> None:
        """See `FrameBody.read_into`; for the receive thread."""
        receive_into(self._socket, view)

    def arrived(self, frame: Frame) -> None:
        """See `FrameBody.arrived`; for the receive thread."""
        if self._config.link:
            lane = self._config.link.incoming
            self._wait(lane.arrival_delay_ns(frame.size_bytes, time.monotonic_ns()))

    def _write(
        self, kind: FrameKind, plan: int, chunk: int, header: bytes, payload: Buffer
    ) -> None:
        view = memoryview(payload)
        frame = Frame(
            kind=kind,
            plan=plan,
            chunk=chunk,
            header_size_bytes=len(header),
            payload_size_bytes=view.nbytes,
            crc32c=self._config.checksum(payload, header),
        )
        parts = [memoryview(encode_head(frame)), memoryview(header), view.cast("B")]
        try:
            with self._write_lock:
                self._pace(frame)
                if self._closing.is_set():
                    raise PeerLostError(self._lost_reason or "this side closed it")
                send_all(self._socket, parts)
        except PeerLostError as error:
            reason = f"connection to {self._peer}: {error}"
            self._lost_reason = self._lost_reason or str(error)
            self._shut_down()
            raise PeerLostError(reason) from error

    def _pace(self, frame: Frame) -> None:
        if self._config.link:
            lane = self._config.link.outgoing
            self._wait(lane.delay_ns(frame.size_bytes, time.monotonic_ns()))

    def _wait(self, delay_ns: int) -> None:
        if delay_ns:
            self._closing.wait(delay_ns / NS_PER_S)

    def _shut_down(self) -> None:
        """Wakes whoever is in the socket; the receive thread then closes it."""
        with contextlib.suppress(OSError):  # Closed already, or the peer was first.
            self._socket.shutdown(socket.SHUT_RDWR)

    def _receive(self) -> None:
        error: PeerLostError | TransportError | None = None
        try:
            if self._is_accepted:
                self._handler.opened(self)
            head = memoryview(bytearray(HEAD_SIZE_BYTES))
            while not self._closing.is_set():
                receive_into(self._socket, head)
                deliver(decode_head(bytes(head)), self, self, self._handler)
        except TransportError as caught:
            error = caught
        finally:
            self._end(error)

    def _end(self, error: TransportError | None) -> None:
        was_closed_here = self._closing.is_set()
        reason = self._lost_reason or str(error)
        self._lost_reason = reason
        self._closing.set()
        self._shut_down()
        with self._write_lock:
            self._socket.close()
        self._on_ended(self)
        if not was_closed_here:
            self._handler.lost(
                self, PeerLostError(f"connection to {self._peer}: {reason}")
            )
