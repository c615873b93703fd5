"""Messages on their way between simulated processes: late, but in order."""

from collections.abc import Callable
from typing import Protocol

from jscale.simulation.clock import VirtualClock
from jscale.simulation.draws import Draws


class Process(Protocol):
    """What can be told things while it lives."""

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""


class Streams:
    """Owns when each stream delivers next. A stream is named by its two ends."""

    def __init__(
        self, clock: VirtualClock, latency_ns: int, jitter_ns: int, draws: Draws
    ) -> None:
        """Messages take the latency, and up to the jitter more."""
        self._clock = clock
        self._latency_ns = latency_ns
        self._jitter_ns = jitter_ns
        self._draws = draws
        self._last_ns: dict[tuple[object, object], int] = {}
        self._num_breaks: dict[tuple[object, object], int] = {}

    def send(
        self,
        sender: object,
        receiver: Process,
        act: Callable[..., None],
        *arguments: object,
    ) -> None:
        """Calls `act(*arguments)` when the message arrives, if the receiver lives."""
        due_ns = self._clock.now_ns + self._latency_ns
        if self._jitter_ns:
            key = (sender, receiver)
            due_ns += self._draws.below(self._jitter_ns + 1)
            due_ns = self._last_ns[key] = max(due_ns, self._last_ns.get(key, 0))
        number = self._num_breaks.get((sender, receiver), 0)
        self._clock.at(due_ns, self._deliver, sender, receiver, number, act, arguments)

    def break_between(self, one: object, other: object) -> None:
        """What is on its way between the two is lost."""
        for key in ((one, other), (other, one)):
            self._num_breaks[key] = self._num_breaks.get(key, 0) + 1

    def _deliver(
        self,
        sender: object,
        receiver: Process,
        num_breaks: int,
        act: Callable[..., None],
        arguments: tuple[object, ...],
    ) -> None:
        is_whole = num_breaks == self._num_breaks.get((sender, receiver), 0)
        if receiver.is_alive and is_whole:
            act(*arguments)
