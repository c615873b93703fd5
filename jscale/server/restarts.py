"""When a process that died is started again; pure."""

from jscale.core.units import NS_PER_MS, NS_PER_S

QUICK_NS = 10 * NS_PER_S
"""A process that dies within so long of its start would most likely do so again."""

QUICK_DEATHS_MAX = 8
"""After so many quick deaths in a row nobody starts it again."""

PAUSE_NS = 100 * NS_PER_MS
"""The first pause; after each quick death in a row it is twice as long."""

PAUSE_NS_MAX = 10 * NS_PER_S
"""No pause is longer."""


class Restarts:
    """Counts the deaths of one process; owned by who starts it."""

    def __init__(self) -> None:
        self._num_quick_deaths = 0

    def pause_ns(self, lived_ns: int) -> int | None:
        """How long to wait after it lived so long; None: it is given up."""
        is_quick = lived_ns < QUICK_NS
        self._num_quick_deaths = self._num_quick_deaths + 1 if is_quick else 0
        if self._num_quick_deaths >= QUICK_DEATHS_MAX:
            return None
        pause_ns = PAUSE_NS << max(0, self._num_quick_deaths - 1)
        return min(pause_ns, PAUSE_NS_MAX)
