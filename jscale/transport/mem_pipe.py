"""One direction of an in-process connection: frames that wait to be read."""

import collections
import dataclasses
import threading
import time

from jscale.core.errors import PeerLostError
from jscale.transport.framing import Frame

PARCELS_MAX = 4
"""Frames on the way at once; the next one waits, as for a full socket buffer."""


@dataclasses.dataclass(frozen=True)
class Parcel:
    """A frame on its way, with a copy of its header and payload."""

    frame: Frame
    body: bytes


class Pipe:
    """Parcels in order, bounded. Mutable and thread-safe."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._changed = threading.Condition()
        self._parcels: collections.deque[Parcel] = collections.deque()
        self._is_closed = False

    def put(self, parcel: Parcel) -> None:
        """Appends a parcel.

        Raises:
          PeerLostError: the pipe is closed, or stayed full for the timeout.
        """
        deadline_s = time.monotonic() + self._timeout_s
        with self._changed:
            while len(self._parcels) >= PARCELS_MAX and not self._is_closed:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise PeerLostError("it took nothing for too long")
                self._changed.wait(left_s)
            if self._is_closed:
                raise PeerLostError("it closed the connection")
            self._parcels.append(parcel)
            self._changed.notify_all()

    def get(self) -> Parcel:
        """The next parcel; waits for it as long as the pipe is open.

        Raises:
          PeerLostError: the pipe is closed and empty.
        """
        with self._changed:
            while not self._parcels:
                if self._is_closed:
                    raise PeerLostError("it closed the connection")
                self._changed.wait()
            self._changed.notify_all()
            return self._parcels.popleft()

    def close(self) -> None:
        """Takes no more parcels; those on the way can still be read."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
