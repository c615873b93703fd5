"""Time as an argument: what decides is told `now_ns`, only the edge reads a clock."""

from typing import Protocol


class Clock(Protocol):
    """Monotonic time, real at the edge and virtual in tests and simulation."""

    def now_ns(self) -> int:
        """Nanoseconds since an arbitrary start; never runs backwards."""
        ...
