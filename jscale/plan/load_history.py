"""What gateways had to do lately: `Load`, and the bounded `LoadHistory` of them."""

import bisect
import dataclasses
from collections.abc import Iterable
from operator import attrgetter

from jscale.core.errors import ConfigError

NUM_LOADS_MAX = 512
"""Loads that a history keeps."""

NUM_SPACINGS = NUM_LOADS_MAX // 4
"""What is looked back on is known to within this part of it. A quarter of what is kept:
as much again may be kept that nobody asks for any more, and the rest is room."""


@dataclasses.dataclass(frozen=True)
class Load:
    """The sum over all gateways at one moment.

    Args:
      now_ns: that moment.
      num_waiting: sequences that wait for a replica.
      num_running: sequences that a replica has.
      num_arrived: requests since the start; like all that follow, it counts up.
      num_finished: requests that ended, well or not, since the start.
      num_tokens: tokens generated since the start.
      prompt_tokens: tokens in the prompts of the requests that arrived.

    Raises:
      ConfigError: a number is under 0.
    """

    now_ns: int
    num_waiting: int = 0
    num_running: int = 0
    num_arrived: int = 0
    num_finished: int = 0
    num_tokens: int = 0
    prompt_tokens: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self)[1:]:
            number = getattr(self, field.name)
            if number < 0:
                raise ConfigError(f"load with {field.name} {number}: give 0 or more")

    @property
    def num_present(self) -> int:
        """Sequences that wait or run: the demand."""
        return self.num_waiting + self.num_running

    @staticmethod
    def total(loads: Iterable["Load"], now_ns: int) -> "Load":
        """What all of these are together. O(loads)."""
        names = [field.name for field in dataclasses.fields(Load)[1:]]
        loads = tuple(loads)
        sums = {name: sum(getattr(load, name) for load in loads) for name in names}
        return Load(now_ns, **sums)


class LoadHistory:
    """The loads of a while, as policies ask for them. Owned by an `Autoscaler`.

    A load holds until the next one. At most `NUM_LOADS_MAX` are kept, evenly spread
    where more come; adding takes O(1) on average, asking O(log loads).
    """

    def __init__(self, first: Load) -> None:
        self._loads = [first]
        self._spacing_ns = 0
        self.since_ns = first.now_ns
        """When the first load of all was seen, kept or not."""
        self.idle_since_ns: int | None = first.now_ns
        """Since when nobody is there, as far as was seen; None: somebody is."""
        self._note_idle(first)

    @property
    def latest(self) -> Load:
        """The load now."""
        return self._loads[-1]

    @property
    def num_loads(self) -> int:
        """How many are kept."""
        return len(self._loads)

    def at(self, now_ns: int) -> Load:
        """The load that held at that moment; the oldest one kept, if that is later."""
        return self._loads[self._index_at(now_ns)]

    def add(self, load: Load) -> None:
        """This holds from now on.

        One that is earlier than the latest counts from that one's time on.
        """
        if load.now_ns < self.latest.now_ns:
            load = dataclasses.replace(load, now_ns=self.latest.now_ns)
        self._note_idle(load)
        if len(self._loads) > 1:
            before, latest = self._loads[-2:]
            if latest.now_ns - before.now_ns < self._spacing_ns:
                self._loads.pop()
        self._loads.append(load)
        if len(self._loads) > NUM_LOADS_MAX:  # Nobody says what may be forgotten.
            del self._loads[: NUM_LOADS_MAX // 2]

    def forget_before(self, now_ns: int) -> None:
        """Nobody will ask for what was before that moment."""
        self._spacing_ns = (self.latest.now_ns - now_ns) // NUM_SPACINGS
        index = self._index_at(now_ns)
        if index > len(self._loads) // 2:  # So that each is moved once on average.
            del self._loads[:index]

    def _note_idle(self, load: Load) -> None:
        if load.num_present:
            self.idle_since_ns = None
        elif self.idle_since_ns is None:
            self.idle_since_ns = load.now_ns

    def _index_at(self, now_ns: int) -> int:
        after = bisect.bisect_right(self._loads, now_ns, key=attrgetter("now_ns"))
        return max(after - 1, 0)
