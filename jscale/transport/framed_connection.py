"""What connections that carry frames in order have in common."""

import abc
import threading
import time
from collections.abc import Callable

from jscale.core.errors import PeerLostError, TransportError
from jscale.core.ids import WorkerId
from jscale.core.spans import Bytes, in_host_memory
from jscale.core.units import NS_PER_S
from jscale.transport.base import Connection, Handler, TransportConfig
from jscale.transport.checksum import Buffer
from jscale.transport.delivery import FrameBody, deliver
from jscale.transport.framing import Frame, FrameKind

CLOSED_HERE = "this side closed it"


class FramedConnection(Connection, abc.ABC):
    """A lock for those who write, a thread that reads; how, its subclasses say."""

    def __init__(
        self,
        peer: WorkerId,
        handler: Handler,
        config: TransportConfig,
        *,
        is_accepted: bool,
        on_ended: Callable[[Connection], None],
    ) -> None:
        self._peer = peer
        self._handler = handler
        self._config = config
        self._is_accepted = is_accepted
        self._on_ended = on_ended
        self._write_lock = threading.Lock()
        self._closing = threading.Event()
        self._lost_reason: str | None = None
        scheme = type(self).__name__.removesuffix("Connection").lower()
        self._thread = _ReceiveThread(
            target=self._receive, name=f"{scheme}-receive-{peer}", daemon=True
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

    def write_chunk(self, plan: int, chunk: int, view: Bytes) -> None:
        """See `Connection.write_chunk`."""
        data = in_host_memory(view)
        self._write(FrameKind.CHUNK, plan, chunk, b"", data, source=view)

    def announce(self, plan: int, held: bytes) -> None:
        """See `Connection.announce`."""
        self._write(FrameKind.ANNOUNCE, plan, 0, b"", held)

    def ask(self, plan: int, chunk: int) -> None:
        """See `Connection.ask`."""
        self._write(FrameKind.ASK, plan, chunk, b"", b"")

    def close(self) -> None:
        """See `Connection.close`."""
        self._lost_reason = self._lost_reason or CLOSED_HERE
        self._closing.set()
        self._break()
        if not isinstance(threading.current_thread(), _ReceiveThread):
            self._thread.join()

    @abc.abstractmethod
    def _put(self, frame: Frame, header: bytes, payload: memoryview) -> None:
        """Hands a frame over, and returns when the payload may be changed.

        Raises:
          PeerLostError: it took nothing for the timeout, or `_break` was called.
        """

    def _put_chunk(self, frame: Frame, payload: memoryview, source: Bytes) -> None:
        """As `_put`, for a chunk; `payload` is `source` where processors can read it.

        The payload stays as it is.
        """
        del source
        self._put(frame, b"", payload)

    @abc.abstractmethod
    def _take(self) -> tuple[Frame, FrameBody]:
        """The next frame, and what reads its body. On the receive thread.

        Raises:
          PeerLostError: there is none, as one of the sides has ended.
          TransportError: what arrived is no frame.
        """

    @abc.abstractmethod
    def _break(self) -> None:
        """Wakes whoever is in `_put` and `_take`, for good, on both sides."""

    def _release(self) -> None:
        """Gives back what the connection used; nobody is in it any more."""

    def _abandon(self) -> None:
        """Tells of chunks that were on their way; nothing of them comes any more."""

    def _write(
        self,
        kind: FrameKind,
        plan: int,
        chunk: int,
        header: bytes,
        payload: Buffer,
        source: Bytes | None = None,
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
        try:
            with self._write_lock:
                if self._config.link:
                    lane = self._config.link.outgoing
                    self._wait(lane.delay_ns(frame.size_bytes, time.monotonic_ns()))
                if self._closing.is_set():
                    raise PeerLostError(CLOSED_HERE)
                if source is None:
                    self._put(frame, header, view.cast("B"))
                else:
                    self._put_chunk(frame, view.cast("B"), source)
        except PeerLostError as error:
            self._lost_reason = self._lost_reason or str(error)
            self._break()
            raise self._loss() from error

    def _arrived(self, frame: Frame) -> None:
        """Waits until the emulated link has carried a frame that is here."""
        if self._config.link:
            lane = self._config.link.incoming
            self._wait(lane.arrival_delay_ns(frame.size_bytes, time.monotonic_ns()))

    def _wait(self, delay_ns: int) -> None:
        if delay_ns:
            self._closing.wait(delay_ns / NS_PER_S)

    def _receive(self) -> None:
        reason = "the handler failed: see the log"
        try:
            if self._is_accepted:
                self._handler.opened(self)
            while not self._closing.is_set():
                deliver(*self._take(), self, self._handler)
        except TransportError as error:
            reason = str(error)
        finally:
            self._end(reason)

    def _end(self, reason: str) -> None:
        was_closed_here = self._closing.is_set()
        self._lost_reason = self._lost_reason or reason
        self._closing.set()
        try:
            self._break()
            with self._write_lock:
                self._release()
        finally:  # Whatever fails above, others are told.
            try:
                self._abandon()
            finally:
                self._on_ended(self)
                if not was_closed_here:
                    self._handler.lost(self, self._loss())

    def _loss(self) -> PeerLostError:
        return PeerLostError(f"connection to {self._peer}: {self._lost_reason}")


class _ReceiveThread(threading.Thread):
    """One that never waits for another of its kind, which might wait for it."""
