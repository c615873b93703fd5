"""`Autoscaler`: what gateways saw, and how many workers are wanted for it."""

import statistics
from collections import deque

from jscale.core.units import NS_PER_MS
from jscale.plan.load_history import Load, LoadHistory
from jscale.plan.scaling_policy import Fleet, ScalingPolicy

RECHECK_NS = 50 * NS_PER_MS
"""How soon a policy is asked again while the load stays as it is: what was seen grows
old, and that is when workers may go."""

NUM_SCALE_OUTS = 8
"""Scale-outs that the estimate of the next one's time rests on."""


class Autoscaler:
    """Holds what a `ScalingPolicy` looks at, and asks it no more often than it must.

    The one part of scaling that changes; a part of a `ManagerState`, which may call
    `wanted` after every event. Calls take O(log loads kept) on average, memory is
    bounded by `NUM_LOADS_MAX` and the most workers there may be.
    """

    def __init__(self, policy: ScalingPolicy, *, scale_out_ns: int) -> None:
        """It has seen nothing yet.

        Args:
          policy: how to choose.
          scale_out_ns: what a scale-out is taken to last until one was measured.
        """
        self._policy = policy
        self._expected_ns = scale_out_ns
        self._took_ns: deque[int] = deque(maxlen=NUM_SCALE_OUTS)
        self._history: LoadHistory | None = None
        self._has_news = False
        self._asked_ns = 0
        self._bounds: tuple[int, int] | None = None
        # What was desired when, as far as nothing later was as high: falling numbers.
        self._desires: deque[tuple[int, int]] = deque()

    @property
    def scale_out_ns(self) -> int:
        """From wanting one more worker until it serves: the median of the last few."""
        if not self._took_ns:
            return self._expected_ns
        return int(statistics.median(self._took_ns))

    def scaled_out(self, took_ns: int) -> None:
        """A worker that was asked for so long ago serves now."""
        self._took_ns.append(took_ns)

    def observe(self, load: Load) -> None:
        """This is the load from now on: the sum over all gateways."""
        self._has_news = True
        if self._history is None:
            self._history = LoadHistory(load)
        else:
            self._history.add(load)

    def wanted(self, fleet: Fleet, now_ns: int) -> int:
        """Workers that there should be, within the fleet's bounds.

        The most that the policy desired while a worker would have been held: demand
        that comes and goes faster than workers can starts and stops none. What was
        wanted before the first load was seen counts as desired: a manager that has been
        restarted knows nothing of a peak a moment ago.
        """
        if self._history is None:
            return fleet.bounded(fleet.num_wanted)
        bounds = (fleet.num_min, fleet.num_max)
        if now_ns >= self._ask_again_ns or bounds != self._bounds:
            self._ask(self._history, fleet, now_ns)
        return fleet.bounded(self._desires[0][1])

    @property
    def _ask_again_ns(self) -> int:
        if not self._desires:
            return self._asked_ns
        poll_ns = self._policy.poll_ns
        return self._asked_ns + (
            poll_ns if self._has_news else max(poll_ns, RECHECK_NS)
        )

    def _ask(self, history: LoadHistory, fleet: Fleet, now_ns: int) -> None:
        history.forget_before(now_ns - self._policy.memory_ns(fleet))
        desired = fleet.bounded(self._policy.desired(history, fleet, now_ns))
        held_from_ns = now_ns - self._policy.hold_ns(fleet)
        if not self._desires:
            desired = max(desired, fleet.bounded(fleet.num_wanted))
        while self._desires and self._desires[-1][1] <= desired:
            self._desires.pop()
        self._desires.append((now_ns, desired))
        while self._desires[0][0] < held_from_ns:
            self._desires.popleft()
        self._asked_ns, self._has_news = now_ns, False
        self._bounds = (fleet.num_min, fleet.num_max)
