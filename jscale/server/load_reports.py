"""When a gateway tells the manager what it has to do. Pure."""

from jscale.cluster.gateway_messages import LoadReported
from jscale.core.units import NS_PER_MS

REPORT_NS = 100 * NS_PER_MS
"""A load that has changed is told no more often than this."""

WAITING_NS = 10 * NS_PER_MS
"""But so soon, if more wait than was told: each moment until a worker is asked for is
one that they wait longer."""


class LoadReports:
    """Owns what the manager was told last. Part of a gateway, for its event loop."""

    def __init__(self) -> None:
        """Nothing was told yet."""
        self._told: LoadReported | None = None
        self._told_ns = 0

    def forget(self) -> None:
        """The manager may be another one, that was told nothing."""
        self._told = None

    def is_due(self, load: LoadReported, now_ns: int) -> bool:
        """Whether to tell this load now; it then counts as told."""
        told = self._told
        if load == told:
            return False
        if told is not None:
            pause_ns = WAITING_NS if load.num_waiting > told.num_waiting else REPORT_NS
            if now_ns < self._told_ns + pause_ns:
                return False
        self._told, self._told_ns = load, now_ns
        return True
