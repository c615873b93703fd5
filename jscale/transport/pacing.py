"""The emulated link of a worker: how long bytes would take on it."""

import threading

from jscale.core.units import NS_PER_MS, NS_PER_S

BURST_NS = 2 * NS_PER_MS
"""How far a lane may catch up after its user came late: more than a thread's usual
delay to wake up, less than the time of a chunk."""


class Lane:
    """One direction of a link. Mutable and thread-safe: shared by all connections."""

    def __init__(self, rate_bytes_per_s: float, *, burst_ns: int = BURST_NS) -> None:
        assert rate_bytes_per_s > 0, rate_bytes_per_s
        self._rate_bytes_per_s = rate_bytes_per_s
        self._burst_ns = burst_ns
        self._free_ns: int | None = None
        self.total_bytes = 0
        """Bytes that have been let across."""
        self._lock = threading.Lock()

    def delay_ns(self, size_bytes: int, now_ns: int) -> int:
        """How long from now until `size_bytes` more have crossed the lane.

        Bytes queue behind those of earlier calls. The caller waits that long and
        calls what it sent delivered.
        """
        return max(0, self._reserve(size_bytes, now_ns) - now_ns)

    def arrival_delay_ns(self, size_bytes: int, now_ns: int) -> int:
        """As `delay_ns`, for bytes of which the last came from the wire just now.

        They crossed this lane while the sender's lane sent them, so a lane that is
        otherwise idle adds nothing.
        """
        sent_ns = now_ns - self.duration_ns(size_bytes)
        return max(0, self._reserve(size_bytes, sent_ns) - now_ns)

    def duration_ns(self, size_bytes: int) -> int:
        """How long that many bytes take on an idle lane."""
        return int(size_bytes * NS_PER_S / self._rate_bytes_per_s)

    def change_rate(self, rate_bytes_per_s: float) -> None:
        """From now on."""
        assert rate_bytes_per_s > 0, rate_bytes_per_s
        self._rate_bytes_per_s = rate_bytes_per_s

    def _reserve(self, size_bytes: int, start_ns: int) -> int:
        """When the bytes have crossed, if the first of them sets out at `start_ns`."""
        earliest_ns = start_ns - self._burst_ns
        with self._lock:
            if self._free_ns is None or self._free_ns < earliest_ns:
                self._free_ns = earliest_ns
            self._free_ns += self.duration_ns(size_bytes)
            self.total_bytes += size_bytes
            return self._free_ns


class LinkPacer:
    """A full-duplex link of one worker, shared by all its connections."""

    def __init__(self, rate_bytes_per_s: float) -> None:
        """A link that carries this rate in each direction at once."""
        self.outgoing = Lane(rate_bytes_per_s)
        self.incoming = Lane(rate_bytes_per_s)

    def change_rate(self, rate_bytes_per_s: float) -> None:
        """From now on it carries this rate."""
        self.outgoing.change_rate(rate_bytes_per_s)
        self.incoming.change_rate(rate_bytes_per_s)
