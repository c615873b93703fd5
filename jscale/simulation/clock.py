"""Time that only passes when something happens: the heap of what will."""

import heapq
from collections.abc import Callable
from typing import Any


class Timer:
    """Something that will happen, unless it is cancelled."""

    __slots__ = ("act", "arguments", "at_ns", "number")

    def __init__(
        self, at_ns: int, number: int, act: Callable[..., None], arguments: Any
    ) -> None:
        self.at_ns = at_ns
        self.number = number
        self.act: Callable[..., None] | None = act
        self.arguments = arguments

    def cancel(self) -> None:
        """It will not happen; a second call does nothing."""
        self.act = None
        self.arguments = ()

    def __lt__(self, other: "Timer") -> bool:
        if self.at_ns != other.at_ns:
            return self.at_ns < other.at_ns
        return self.number < other.number


class VirtualClock:
    """What will happen when. What is due at the same time happens in order of asking.

    Owns the order of all events of a simulation.
    """

    def __init__(self) -> None:
        self.now_ns = 0
        self.num_events = 0
        self._timers: list[tuple[int, int, Timer]] = []
        self._number = 0

    def at(self, at_ns: int, act: Callable[..., None], *arguments: object) -> Timer:
        """Has `act(*arguments)` called at that time, or now if it is over. O(log n)."""
        at_ns = max(at_ns, self.now_ns)
        self._number += 1
        timer = Timer(at_ns, self._number, act, arguments)
        heapq.heappush(self._timers, (at_ns, self._number, timer))
        return timer

    def after(
        self, delay_ns: int, act: Callable[..., None], *arguments: object
    ) -> Timer:
        """Has `act(*arguments)` called after so long. O(log n)."""
        return self.at(self.now_ns + delay_ns, act, *arguments)

    def run_next(self) -> bool:
        """Has the next thing happen; False if nothing will. O(log n)."""
        while self._timers:
            at_ns, _, timer = heapq.heappop(self._timers)
            act = timer.act
            if act is None:
                continue
            self.now_ns = at_ns
            self.num_events += 1
            act(*timer.arguments)
            return True
        return False
