"""The course of a run: arrivals, scale requests, faults, and when it is over."""

from collections.abc import Callable, Sequence

from jscale.core.units import NS_PER_S
from jscale.simulation.faults import Faults
from jscale.simulation.results import SimulationResult
from jscale.simulation.settings import Fault, ScaleRequest
from jscale.simulation.world import World

SETTLE_NS = 60 * NS_PER_S
"""How long after the last request the cluster may take to come to rest."""

QUIET_NS = 100_000_000
"""How often it is looked at whether it has."""


class Run:
    """Owns what is still to happen to a world."""

    def __init__(
        self,
        world: World,
        scale_requests: Sequence[ScaleRequest] = (),
        faults: Sequence[Fault] = (),
        *,
        rest_ns: int = QUIET_NS,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """Nothing has happened yet; the run is over after so long a rest at its end.

        `progress` is told from time to time which share of all requests has ended.
        """
        self._world = world
        self._faults = Faults(world)
        self._next_request = 0
        self._num_due = len(scale_requests) + len(faults)
        self._is_over = False
        self._rest_ns = rest_ns
        self._progress = progress
        self._served_ns: int | None = None
        self._rests_since_ns: int | None = None
        self._arrive_next()
        for asked in scale_requests:
            world.clock.at(asked.at_ns, self._scale, asked)
        for fault in faults:
            world.clock.at(fault.at_ns, self._fault, fault)
        world.clock.after(QUIET_NS, self._look_for_rest)

    def result(self) -> SimulationResult:
        """Runs to the end."""
        while self.step():
            pass
        clock = self._world.clock
        return self._world.recorder.result(clock.now_ns, clock.num_events)

    def step(self) -> bool:
        """Has the next thing happen; False if the run is over."""
        return not self._is_over and self._world.clock.run_next()

    def _arrive_next(self) -> None:
        if self._next_request < len(self._world.trace):
            at_ns = self._world.trace[self._next_request].arrival_ns
            self._world.clock.at(at_ns, self._arrive)

    def _arrive(self) -> None:
        number = self._next_request
        self._next_request += 1
        self._arrive_next()
        self._world.submit(number)

    def _scale(self, asked: ScaleRequest) -> None:
        self._num_due -= 1
        self._world.gateway.scale_to(asked.num_workers)

    def _fault(self, fault: Fault) -> None:
        self._num_due -= 1
        self._faults.happen(fault)

    def _look_for_rest(self) -> None:
        """Over when all requests are, and the cluster is at rest or had its time."""
        world, now_ns = self._world, self._world.clock.now_ns
        if self._progress is not None and world.trace:
            self._progress(world.recorder.num_ended / len(world.trace))
        is_served = world.recorder.num_ended == len(world.trace) and not self._num_due
        if is_served and self._served_ns is None:
            self._served_ns = now_ns
        if not (is_served and world.is_at_rest):
            self._rests_since_ns = None
        elif self._rests_since_ns is None:
            self._rests_since_ns = now_ns
        has_rested = (
            self._rests_since_ns is not None
            and now_ns - self._rests_since_ns >= self._rest_ns
        )
        had_time = self._served_ns is not None and now_ns - self._served_ns >= SETTLE_NS
        if has_rested or had_time:
            self._is_over = True
        else:
            world.clock.after(QUIET_NS, self._look_for_rest)
