"""How many workers there should be: what a scaling policy promises, and the kinds."""

import abc
import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType

from jscale.core.errors import ConfigError
from jscale.core.units import NS_PER_S
from jscale.plan.load_history import LoadHistory


@dataclasses.dataclass(frozen=True)
class Fleet:
    """The workers of a model at one moment.

    Args:
      num_ready: workers that serve with the whole model.
      num_coming: workers that were asked for and do not yet.
      num_wanted: what was decided last.
      sequences_per_worker: sequences that a worker takes at once.
      scale_out_ns: from the decision for one more worker until it serves.
      num_min: fewer are never wanted; 0 lets the model scale to zero.
      num_max: more are never wanted.

    Raises:
      ConfigError: a number is out of its range.
    """

    num_ready: int
    num_coming: int
    num_wanted: int
    sequences_per_worker: int
    scale_out_ns: int
    num_min: int = 1
    num_max: int = 1

    def __post_init__(self) -> None:
        if self.sequences_per_worker < 1:
            raise ConfigError(
                f"fleet with {self.sequences_per_worker} sequences per worker: "
                "give at least 1"
            )
        if not 0 <= self.num_min <= self.num_max or self.num_max < 1:
            raise ConfigError(
                f"fleet of {self.num_min} to {self.num_max} workers: give a least of 0 "
                "or more, and a most of 1 or more that is not under it"
            )
        if self.scale_out_ns < 0:
            raise ConfigError(
                f"fleet with scale_out_ns {self.scale_out_ns}: give 0 or more"
            )

    def bounded(self, num_workers: int) -> int:
        """The number nearest to this one that may be wanted."""
        return min(max(num_workers, self.num_min), self.num_max)

    def workers_for(self, num_sequences: float) -> int:
        """Workers that take so many sequences at once; one, if there is any at all."""
        return math.ceil(num_sequences / self.sequences_per_worker)


@dataclasses.dataclass(frozen=True)
class ScalingPolicy(abc.ABC):
    """How many workers there should be, from what was seen: a pure, frozen choice.

    The bounds of the fleet need not be kept, nor what was desired before be
    remembered: `Autoscaler` does both.
    """

    @property
    def poll_ns(self) -> int:
        """It is asked at most once in so long; 0: whenever the load changes."""
        return 0

    @abc.abstractmethod
    def memory_ns(self, fleet: Fleet) -> int:
        """How far back it looks."""

    @abc.abstractmethod
    def hold_ns(self, fleet: Fleet) -> int:
        """How long a worker stays after it was last desired."""

    @abc.abstractmethod
    def desired(self, history: LoadHistory, fleet: Fleet, now_ns: int) -> int:
        """Workers that there should be now, if starting and stopping cost nothing.

        Args:
          history: the loads from `now_ns − memory_ns(fleet)` on, the latest of which
            holds now; it is only read.
          fleet: the workers now.
          now_ns: the time.
        """


@dataclasses.dataclass(frozen=True)
class Fixed(ScalingPolicy):
    """Always the same number."""

    num_workers: int

    def memory_ns(self, fleet: Fleet) -> int:  # noqa: ARG002
        """It looks at nothing."""
        return 0

    def hold_ns(self, fleet: Fleet) -> int:  # noqa: ARG002
        """Nothing changes."""
        return 0

    def desired(self, history: LoadHistory, fleet: Fleet, now_ns: int) -> int:  # noqa: ARG002
        """That number."""
        return self.num_workers


@dataclasses.dataclass(frozen=True)
class QueueProportional(ScalingPolicy):
    """As many workers as the sequences that are present fill, found out by a poll.

    Source: λScale's artifact (arXiv 2502.09922) polls each 0.5 to 1 s and scales in
    proportion to the queue; that a worker is kept for a while is the custom of
    serverless platforms, ServerlessLLM among them.

    Args:
      every_ns: from one poll to the next.
      keep_alive_ns: how long a worker stays after it was last needed.
    """

    every_ns: int = NS_PER_S // 2
    keep_alive_ns: int = 10 * NS_PER_S

    @property
    def poll_ns(self) -> int:
        """The poll."""
        return self.every_ns

    def memory_ns(self, fleet: Fleet) -> int:  # noqa: ARG002
        """Now is all that counts."""
        return 0

    def hold_ns(self, fleet: Fleet) -> int:  # noqa: ARG002
        """The keep-alive."""
        return self.keep_alive_ns

    def desired(self, history: LoadHistory, fleet: Fleet, now_ns: int) -> int:  # noqa: ARG002
        """Workers for all that are present."""
        return fleet.workers_for(history.latest.num_present)


IDEAL = QueueProportional(every_ns=0, keep_alive_ns=0)
"""What a system would choose in which workers come and go in no time."""


@dataclasses.dataclass(frozen=True)
class UtilisationBound(ScalingPolicy):
    """More workers when those wanted are used beyond a bound, fewer when far under it.

    Source: BlitzScale (arXiv 2412.17246) scales out when its monitor sees the load
    above what the instances should serve. Here the load is the sequences present, and
    capacity what the wanted workers take at once.

    Args:
      out_above: share of the capacity beyond which workers are added, until it is not
        passed.
      in_below: share below which workers go.
      keep_alive_ns: how long it must have been below.

    Raises:
      ConfigError: the shares are not in order.
    """

    out_above: float = 0.9
    in_below: float = 0.6
    keep_alive_ns: int = 5 * NS_PER_S

    def __post_init__(self) -> None:
        if not 0 < self.in_below < self.out_above <= 1:
            raise ConfigError(
                f"utilisation bounds {self.in_below} and {self.out_above}: give "
                "0 < in_below < out_above <= 1"
            )

    def memory_ns(self, fleet: Fleet) -> int:  # noqa: ARG002
        """Now is all that counts."""
        return 0

    def hold_ns(self, fleet: Fleet) -> int:  # noqa: ARG002
        """The keep-alive."""
        return self.keep_alive_ns

    def desired(self, history: LoadHistory, fleet: Fleet, now_ns: int) -> int:  # noqa: ARG002
        """Workers used up to the upper bound, if one of the bounds is passed."""
        present = history.latest.num_present
        capacity = fleet.num_wanted * fleet.sequences_per_worker
        if self.in_below * capacity <= present <= self.out_above * capacity:
            return fleet.num_wanted
        return fleet.workers_for(present / self.out_above)


@dataclasses.dataclass(frozen=True)
class Anticipating(ScalingPolicy):
    """Enough workers for what will be there once a worker asked for now would be.

    What will be there is what is there, and what comes until then: if demand rises
    faster than by chance, as much again as in the last scale-out's time; else what
    chance may bring, times `caution`. Requests arrive and end one by one, so that of n
    arrivals and ends together the demand changes by √n by chance alone.

    A worker stays for as long as a scale-out takes, times `hold`. With 1 that is the
    ski rental: giving a worker up and getting it back costs a scale-out's time of an
    accelerator, keeping it costs the time kept, and who keeps it for as long as getting
    it back would take never pays more than twice what one would who knew the future.
    Demand that falls and rises by chance is no such enemy: there half of it costs 1 to
    2 % less, and hardly anybody waits for it. So where scale-outs take 0.8 s nothing
    is kept for 10 s. When nobody is there at all it is another matter: the last worker
    stays for `idle_ns`, as a first one takes longer, and somebody waits for all of it.

    Args:
      hold: scale-out times that a worker stays after it was last desired.
      caution: standard deviations of chance that room is kept for.
      idle_ns: how long the last worker stays when nobody is there.

    Raises:
      ConfigError: one of them is under 0.
    """

    hold: float = 0.5
    caution: float = 0.25
    idle_ns: int = 60 * NS_PER_S

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value >= 0:
                raise ConfigError(f"{field.name} {value}: give 0 or more")

    def memory_ns(self, fleet: Fleet) -> int:
        """A scale-out's time."""
        return fleet.scale_out_ns

    def hold_ns(self, fleet: Fleet) -> int:
        """That many scale-outs' time."""
        return round(self.hold * fleet.scale_out_ns)

    def desired(self, history: LoadHistory, fleet: Fleet, now_ns: int) -> int:
        """Workers for what will be there."""
        idle_ns = history.idle_since_ns
        if idle_ns is not None:
            return int(now_ns - idle_ns < self.idle_ns)
        now, before = history.latest, history.at(now_ns - fleet.scale_out_ns)
        growth = now.num_present - before.num_present
        num_arrived = max(0, now.num_arrived - before.num_arrived)
        num_finished = max(0, now.num_finished - before.num_finished)
        chance = math.sqrt(num_arrived + num_finished)
        coming = max(growth - chance, self.caution * chance)
        return fleet.workers_for(now.num_present + coming)


SCALING_POLICIES: Mapping[str, ScalingPolicy] = MappingProxyType(
    {
        "anticipating": Anticipating(),
        "queue": QueueProportional(),
        "utilisation": UtilisationBound(),
    }
)
"""What `--autoscale` may be, besides off."""
