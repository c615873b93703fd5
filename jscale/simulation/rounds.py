"""Rounds of a multicast, for systems whose controller puts a barrier between them."""

from collections.abc import Callable

from jscale.core.ids import WorkerId
from jscale.plan.multicast_plan import MulticastPlan
from jscale.simulation.clock import VirtualClock


class Rounds:
    """Opens a step of a plan when all that the steps before it move has come.

    Shared by the members of the plan. What a member gets in another way than by plan,
    or never will since somebody is lost, holds nobody up.
    """

    def __init__(
        self, plan: MulticastPlan, clock: VirtualClock, barrier_ns: int
    ) -> None:
        """The first step is open. O(members · chunks)."""
        self._clock = clock
        self._barrier_ns = barrier_ns
        self._now = 0
        self._is_turning = False
        self._due: dict[tuple[WorkerId, int], tuple[int, WorkerId]] = {}
        self._num_due = [0] * plan.num_steps
        self._waiting: dict[int, list[Callable[[], None]]] = {}
        for index, target in enumerate(plan.members):
            for step, source, chunk in plan.receives_of(index):
                self._due[target, chunk] = step, plan.members[source]
                self._num_due[step] += 1

    def when_open(self, target: WorkerId, chunk: int, send: Callable[[], None]) -> bool:
        """Calls `send` when the step that moves the chunk there opens.

        Returns False, and calls nothing, if it is open, or the chunk is in no step.
        """
        step, _ = self._due.get((target, chunk), (self._now, target))
        if step <= self._now:
            return False
        self._waiting.setdefault(step, []).append(send)
        return True

    def landed(self, target: WorkerId, chunk: int) -> None:
        """The target has the chunk."""
        due = self._due.pop((target, chunk), None)
        if due is not None:
            self._num_due[due[0]] -= 1
            self._turn()

    def lost(self, worker: WorkerId) -> None:
        """Nothing will come to this worker, or from it, by plan."""
        gone = [
            key for key, (_, source) in self._due.items() if worker in (key[0], source)
        ]
        for target, chunk in gone:
            self.landed(target, chunk)

    def _turn(self) -> None:
        is_done = self._now < len(self._num_due) and not self._num_due[self._now]
        if is_done and not self._is_turning:
            self._is_turning = True
            self._clock.after(self._barrier_ns, self._open_next)

    def _open_next(self) -> None:
        self._is_turning = False
        self._now += 1
        while self._now < len(self._num_due) and not self._num_due[self._now]:
            self._now += 1
        for step in [each for each in self._waiting if each <= self._now]:
            for send in self._waiting.pop(step):
                send()
        self._turn()
