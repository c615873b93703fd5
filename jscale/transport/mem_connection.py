"""One side of an in-process connection."""

import threading
import time
from collections.abc import Callable

from jscale.core.errors import PeerLostError, TransportError
from jscale.core.ids import WorkerId
from jscale.core.units import NS_PER_S
from jscale.transport.base import Connection, Handler, TransportConfig
from jscale.transport.checksum import Buffer
from jscale.transport.delivery import FrameBody, deliver
from jscale.transport.framing import Frame, FrameKind
from jscale.transport.mem_pipe import Parcel, Pipe


class MemConnection(Connection):
    """A `Connection` on two pipes, with a thread that reads one of them."""

    def __init__(
        self,
        *,
        incoming: Pipe,
        outgoing: Pipe,
        peer: WorkerId,
        handler: Handler,
        config: TransportConfig,
        is_accepted: bool,
        on_ended: Callable[["MemConnection"], None],
    ) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._peer = peer
        self._handler = handler
        self._config = config
        self._is_accepted = is_accepted
        self._on_ended = on_ended
        self._write_lock = threading.Lock()
        self._closing = threading.Event()
        self._lost_reason: str | None = None
        self._thread = threading.Thread(
            target=self._receive, name=f"mem-receive-{peer}", daemon=True
        )

    def start(self) -> None:
        """Begins to receive; called once, by the transport."""
        self._thread.start()

    @property
    def peer(self) -> WorkerId:
        """See `Connection.peer`."""
        return self._peer

    def send_message(self, header: bytes, payload: Buffer = b"") -> None:
        """See `Connection.send_message`."""
        self._write(FrameKind.MESSAGE, 0, 0, header, payload)

    def write_chunk(self, plan: int, chunk: int, view: memoryview) -> None:
        """See `Connection.write_chunk`; here the bytes are copied twice."""
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
        self._close_pipes()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _write(
        self, kind: FrameKind, plan: int, chunk: int, header: bytes, payload: Buffer
    ) -> None:
        copy = bytes(payload)
        frame = Frame(
            kind=kind,
            plan=plan,
            chunk=chunk,
            header_size_bytes=len(header),
            payload_size_bytes=len(copy),
            crc32c=self._config.checksum(payload, header),
        )
        try:
            with self._write_lock:
                if self._config.link:
                    lane = self._config.link.outgoing
                    self._wait(lane.delay_ns(frame.size_bytes, time.monotonic_ns()))
                if self._closing.is_set():
                    raise PeerLostError(self._lost_reason or "this side closed it")
                self._outgoing.put(Parcel(frame, bytes(header), copy))
        except PeerLostError as error:
            self._lost_reason = self._lost_reason or str(error)
            self._close_pipes()
            raise PeerLostError(f"connection to {self._peer}: {error}") from error

    def _wait(self, delay_ns: int) -> None:
        if delay_ns:
            self._closing.wait(delay_ns / NS_PER_S)

    def _close_pipes(self) -> None:
        self._incoming.close()
        self._outgoing.close()

    def _receive(self) -> None:
        error: TransportError | None = None
        try:
            if self._is_accepted:
                self._handler.opened(self)
            while not self._closing.is_set():
                parcel = self._incoming.get()
                body = _ParcelBody(parcel, self._arrived)
                deliver(parcel.frame, body, self, self._handler)
        except TransportError as caught:
            error = caught
        finally:
            self._end(error)

    def _arrived(self, frame: Frame) -> None:
        if self._config.link:
            lane = self._config.link.incoming
            self._wait(lane.arrival_delay_ns(frame.size_bytes, time.monotonic_ns()))

    def _end(self, error: TransportError | None) -> None:
        was_closed_here = self._closing.is_set()
        self._lost_reason = self._lost_reason or str(error)
        self._closing.set()
        self._close_pipes()
        self._on_ended(self)
        if not was_closed_here:
            reason = f"connection to {self._peer}: {self._lost_reason}"
            self._handler.lost(self, PeerLostError(reason))


class _ParcelBody(FrameBody):
    """Reads a parcel; owned by the receive thread for one frame."""

    def __init__(self, parcel: Parcel, arrived: Callable[[Frame], None]) -> None:
        self._left = memoryview(parcel.header + parcel.payload)
        self._arrived = arrived

    def read_into(self, view: memoryview) -> None:
        """See `FrameBody.read_into`."""
        view[:] = self._left[: view.nbytes]
        self._left = self._left[view.nbytes :]

    def arrived(self, frame: Frame) -> None:
        """See `FrameBody.arrived`."""
        self._arrived(frame)
