"""The sequences that wait for a replica, first come first served; pure."""

import heapq
from collections.abc import Iterator

from jscale.server.live import LiveSequence

NUM_GONE_MIN = 64
"""So many entries of the heap may be gone before they are worth a sweep."""


class Waiting:
    """A queue in the order of arrival, whatever order they are added in.

    A sequence that is taken out leaves its number in the heap, which is dropped when
    it comes up: every change is O(log waiting), amortised. Part of a `Router`.
    """

    def __init__(self) -> None:
        self._by_arrival: dict[int, LiveSequence] = {}
        self._heap: list[int] = []

    def __len__(self) -> int:
        return len(self._by_arrival)

    def __iter__(self) -> Iterator[LiveSequence]:
        for arrival in sorted(self._by_arrival):
            yield self._by_arrival[arrival]

    def add(self, live: LiveSequence) -> None:
        """It waits, before all that arrived later."""
        assert live.arrival not in self._by_arrival, live
        self._by_arrival[live.arrival] = live
        heapq.heappush(self._heap, live.arrival)

    def discard(self, live: LiveSequence) -> None:
        """It does not wait, whether it did or not."""
        self._by_arrival.pop(live.arrival, None)
        if len(self._heap) > 2 * len(self._by_arrival) + NUM_GONE_MIN:
            self._heap = sorted(self._by_arrival)

    def pop(self) -> LiveSequence:
        """Takes the one that arrived first; there must be one."""
        while True:
            arrival = heapq.heappop(self._heap)
            live = self._by_arrival.pop(arrival, None)
            if live is not None:
                return live
