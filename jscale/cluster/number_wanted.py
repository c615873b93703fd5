"""How many workers are wanted: by people, and by the load that gateways report."""

import dataclasses

from jscale.cluster.events import LauncherAttached
from jscale.cluster.gateway_messages import LoadReported, RememberWanted
from jscale.core.errors import ConfigError
from jscale.core.ids import WorkerId
from jscale.core.units import NS_PER_S
from jscale.plan.autoscale import Autoscaler
from jscale.plan.load_history import Load
from jscale.plan.scaling_policy import Fleet, ScalingPolicy

NUM_STARTED_MAX = 64
"""Workers on the way whose time is taken, the last ones: enough for an estimate."""


@dataclasses.dataclass(frozen=True)
class ScalingBounds:
    """Between what the load may decide, and what it has to expect.

    Attributes:
      num_min: fewer workers are never wanted; 0 lets the model scale to zero.
      num_max: more are never wanted, unless people ask for them.
      scale_out_ns: what starting a worker is taken to last until one was started.

    Raises:
      ConfigError: the bounds are not in order.
    """

    num_min: int = 1
    num_max: int = 1
    scale_out_ns: int = 5 * NS_PER_S

    def __post_init__(self) -> None:
        if not 0 <= self.num_min <= self.num_max or self.num_max < 1:
            raise ConfigError(
                f"autoscaling between {self.num_min} and {self.num_max} workers: give "
                "a least of 0 or more, and a most of 1 or more that is not under it"
            )


class NumberWanted:
    """Owns the number. Part of a `ManagerState`, pure like it.

    Without a scaling policy the number is what people ask for. With one it follows the
    load, and what people ask for is the least, until they ask again: so people can
    prepare for what no gateway has seen yet, and need not switch it on again.
    """

    def __init__(
        self,
        number: int | None,
        policy: ScalingPolicy | None,
        bounds: ScalingBounds,
        *,
        sequences_per_worker: int,
        epoch: int = 0,
    ) -> None:
        """Nobody has reported anything yet.

        Args:
          number: how many at first; None: as many as attach, or the bounds' least.
          policy: how the load decides; None: it does not.
          bounds: between what.
          sequences_per_worker: sequences that a worker takes at once.
          epoch: the manager's.
        """
        self._autoscaler: Autoscaler | None = None
        self._bounds = bounds
        self._sequences_per_worker = sequences_per_worker
        self._epoch = epoch
        self._number_epoch = -1
        self._remembered: int | None = None
        self._loads: dict[str, Load] = {}
        self._started_ns: dict[WorkerId, int] = {}
        if policy is not None:
            self._autoscaler = Autoscaler(policy, scale_out_ns=bounds.scale_out_ns)
            number = bounds.num_min if number is None else number
        self.number = number
        """How many are wanted; None: as many as attach."""

    def ask(self, number: int) -> None:
        """Somebody asks for so many."""
        self.number, self._number_epoch = number, self._epoch
        if self._autoscaler is not None:
            num_max = max(self._bounds.num_max, number)
            self._bounds = dataclasses.replace(
                self._bounds, num_min=number, num_max=num_max
            )

    def learn(self, number: int | None, epoch: int) -> None:
        """Somebody knows what an earlier manager wanted; the latest one counts."""
        if number is not None and self._number_epoch < epoch < self._epoch:
            self.number, self._number_epoch = number, epoch

    @property
    def is_told(self) -> bool:
        """Somebody asked for it, of this manager or of an earlier one."""
        return self._number_epoch >= 0

    def to_remember(self) -> RememberWanted | None:
        """What the launcher is to keep for the next manager, once after each change."""
        if not self.is_told or self.number is None or self.number == self._remembered:
            return None
        self._remembered = self.number
        return RememberWanted(self.number, self._epoch)

    def joined(self, number: int, *, is_back: bool) -> None:
        """With one more, not asked for, so many are there and stay.

        One that was there before was wanted then, unless somebody knows better.
        """
        if self.number is not None and not (is_back and self.is_told):
            self.number = max(self.number, number)

    def launcher_attached(self, event: LauncherAttached) -> None:
        """It runs some, and may know how many an earlier manager wanted.

        Those that it runs were wanted, unless somebody knows better: some may be about
        to go.
        """
        self.learn(event.num_workers_wanted, event.wanted_epoch)
        self.joined(len(event.workers), is_back=True)
        self._remembered = None

    def one_fewer(self) -> None:
        """A worker goes by its own wish; others that are on the way stay wanted."""
        if self.number:
            self.number -= 1

    def reported(self, gateway: str, report: LoadReported, now_ns: int) -> None:
        """A gateway says what it has to do. O(gateways)."""
        self._loads[gateway] = Load(
            now_ns,
            num_waiting=report.num_waiting,
            num_running=report.num_running,
            num_arrived=report.num_arrived,
            num_finished=report.num_finished,
            num_tokens=report.num_tokens,
            prompt_tokens=report.prompt_tokens,
        )
        self._observe(now_ns)

    def gateway_lost(self, gateway: str, now_ns: int) -> None:
        """What it had to do comes back through others, or not at all."""
        if self._loads.pop(gateway, None) is not None:
            self._observe(now_ns)

    def started(self, worker: WorkerId, now_ns: int) -> None:
        """Its process is asked for."""
        self._started_ns[worker] = now_ns
        if len(self._started_ns) > NUM_STARTED_MAX:
            del self._started_ns[next(iter(self._started_ns))]

    def serves(self, worker: WorkerId, now_ns: int) -> None:
        """It holds the whole model: so long does it take."""
        started_ns = self._started_ns.pop(worker, None)
        if started_ns is not None and self._autoscaler is not None:
            self._autoscaler.scaled_out(now_ns - started_ns)

    def gone(self, worker: WorkerId) -> None:
        """It is lost, or never came."""
        self._started_ns.pop(worker, None)

    def follow_load(self, num_ready: int, now_ns: int) -> None:
        """Sets the number by the load, if that decides; cheap enough for each event."""
        if self._autoscaler is None:
            return
        assert self.number is not None
        self.number = self._autoscaler.wanted(
            Fleet(
                num_ready=num_ready,
                num_coming=max(0, self.number - num_ready),
                num_wanted=self.number,
                sequences_per_worker=self._sequences_per_worker,
                scale_out_ns=self._autoscaler.scale_out_ns,
                num_min=self._bounds.num_min,
                num_max=self._bounds.num_max,
            ),
            now_ns,
        )

    def _observe(self, now_ns: int) -> None:
        if self._autoscaler is not None:
            self._autoscaler.observe(Load.total(self._loads.values(), now_ns))
