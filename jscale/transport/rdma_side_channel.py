"""The socket beside the queue pairs: first words, last words, sign of life."""

import collections
import contextlib
import socket
import threading
import time

from jscale.core.errors import PeerLostError
from jscale.transport.rdma_endpoint import Bye, Note, NoteReader, encode_note

ENDING_S = 1.0
"""How long, once a side has ended it, the last bytes of the connection may take."""

_READ_SIZE_BYTES = 1 << 16


class SideChannel:
    """Notes to and from the peer. `tell` is thread-safe; one thread at a time reads."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lock = threading.Lock()
        self._reader = NoteReader()
        self._unread: collections.deque[Note] = collections.deque()
        self._bye: Bye | None = None
        self._reason = ""
        self._ended_s = 0.0

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def tell(self, note: Note) -> None:
        """Tells the peer something, unless it is gone."""
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(encode_note(note))

    def next(self, deadline_s: float) -> Note:
        """The next note; waits for it until `time.monotonic()` is `deadline_s`.

        Raises:
          PeerLostError: there is none.
          TransportError: what came cannot be understood.
        """
        while not self._unread:
            try:
                self._socket.settimeout(max(1e-3, deadline_s - time.monotonic()))
                data = self._socket.recv(_READ_SIZE_BYTES)
            except TimeoutError as error:
                raise PeerLostError("it said nothing for too long") from error
            except OSError as error:
                raise PeerLostError(str(error)) from error
            if not data:
                raise PeerLostError("it closed the connection")
            self._unread.extend(self._reader.feed(data))
        return self._unread.popleft()

    def read(self) -> tuple[list[Note], bool]:
        """The notes that are here, and whether they were the last; does not wait.

        Raises:
          TransportError: what came cannot be understood.
        """
        reason = "it closed the connection"
        try:
            data = self._socket.recv(_READ_SIZE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            data = None
        except OSError as error:
            data, reason = b"", str(error)
        notes = [*self._unread, *self._reader.feed(data or b"")]
        self._unread.clear()
        for note in notes:
            if isinstance(note, Bye):
                self._bye = note
                if note.reason:
                    reason = f"it ended the connection: {note.reason}"
        has_ended = data == b"" or self._bye is not None
        if has_ended:
            self._reason = self._reason or reason
            self._ended_s = self._ended_s or time.monotonic()
        return [note for note in notes if not isinstance(note, Bye)], has_ended

    def why_over(self, num_received: int, now_s: float) -> str:
        """Why it has ended, once all is here that the peer has sent; else nothing.

        Args:
          num_received: what has come over the queue pairs.
          now_s: `time.monotonic()`.
        """
        is_whole = self._bye is None or num_received >= self._bye.num_sent
        is_late = now_s > self._ended_s + ENDING_S
        return self._reason if is_whole or is_late else ""

    def end(self, bye: Bye) -> None:
        """Says the last note."""
        self.tell(bye)
        with contextlib.suppress(OSError):  # The peer was first.
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()
