"""What a worker says that it could send is in region 0; against a dumb model."""

import random

import pytest

from jscale.cluster import worker_effects as effects
from jscale.cluster import worker_events as events
from jscale.cluster.messages import Bundle, JoinMulticast, Member, WorkerHello
from jscale.cluster.worker_executables import WorkerExecutables
from jscale.cluster.worker_state import WorkerState
from jscale.core.ids import PlanId, WorkerId

OTHERS = (Bundle("x" * 64, 4096, "f"), Bundle("y" * 64, 4096, "f"))
OWN = Bundle("o" * 64, 4096, "f")


class Region:
    """Region 0 as the worker's store has it, and the executables thread."""

    def __init__(self, rng):
        self.state = WorkerExecutables()
        self.rng = rng
        self.content, self.is_whole = None, False
        self.is_transferring = False
        self.has_all_blocks = False
        self.todo = []
        self.told = None

    def carry_out(self, wanted):
        for effect in wanted:
            match effect:
                case effects.PlaceExecutables():
                    assert not self.is_transferring, "numbers of chunks would shift"
                    self.content, self.is_whole = OWN, True
                case effects.CompileExecutables() | effects.LoadExecutables():
                    self.todo.append(effect)
                case effects.Report(ready):
                    self.told = ready
        if not self.is_transferring:
            settled = self.state.settle(has_all_blocks=self.has_all_blocks)
            if settled:
                self.carry_out(settled)

    def join(self, bundle, is_source):
        self.is_transferring = True
        if bundle != self.content:
            self.content, self.is_whole = bundle, False
        self.carry_out(self.state.join(bundle, is_source=is_source))

    def fill(self):
        if self.content is not None and not self.is_whole and self.is_transferring:
            self.is_whole = True
            self.carry_out(self.state.filled())

    def end(self):
        self.is_transferring = False
        self.carry_out([])

    def work(self):
        """The executables thread does the next thing that it was told."""
        if not self.todo:
            return
        match self.todo.pop(0):
            case effects.CompileExecutables():
                event = events.ExecutablesLoaded("compiled", 1.0, True, OWN)
            case effects.LoadExecutables(bundle):
                if (self.content, self.is_whole) != (bundle, True):
                    return  # They made room for others.
                if self.rng.random() < 0.2:
                    self.carry_out(self.state.mismatched("jaxlib is another"))
                    return
                event = events.ExecutablesLoaded("received", 1.0, True, bundle)
        loaded = self.state.loaded(event, is_transferring=self.is_transferring)
        self.carry_out(loaded)

    def check(self):
        if self.state.bundle is not None:
            assert (self.content, self.is_whole) == (self.state.bundle, True)
        if self.told is not None:
            assert self.told.bundle == self.state.bundle, "the manager must know"


@pytest.mark.parametrize("seed", range(200))
def test_what_it_could_send_is_there_and_the_manager_knows(seed):
    rng = random.Random(seed)
    region = Region(rng)
    for _ in range(40):
        match rng.randrange(6):
            case 0:
                bundle = rng.choice((*OTHERS, None))
                region.join(bundle, is_source=rng.random() < 0.3)
            case 1 | 2:
                region.fill()
            case 3:
                region.end()
            case 4:
                region.carry_out(region.state.compile("no worker has them"))
            case 5:
                region.work()
        region.check()
    # In the end it can run, and has something to give.
    region.has_all_blocks = True
    region.end()
    for _ in range(10):
        region.work()
        region.check()
    assert region.state.are_complete
    has_compiled = region.state._compiled is not None
    assert region.state.bundle is not None or not has_compiled


def test_a_plan_that_brings_what_is_there_changes_nothing():
    executables = WorkerExecutables()
    executables.loaded(
        events.ExecutablesLoaded("compiled", 1.0, True, OWN), is_transferring=False
    )
    assert executables.bundle == OWN
    assert executables.join(OWN, is_source=True) == []
    assert executables.bundle == OWN


def test_executables_are_placed_once_and_only_between_transfers():
    name = WorkerId("w1")
    state = WorkerState(WorkerHello(name, "mem://w1", "w1:1"))
    member = Member(name, "mem://w1")
    join = JoinMulticast(PlanId(1), "binomial", ((member, Member("w2", "mem://w2")),))
    state.step(events.CommandArrived(join))
    compiled = events.ExecutablesLoaded("compiled", 1.0, True, OWN)
    assert effects.PlaceExecutables() not in state.step(compiled)
    over = state.step(events.TransferOver(PlanId(1), 1))
    assert effects.PlaceExecutables() in over
    assert effects.PlaceExecutables() not in state.step(events.LinkMeasured(0.0, 0.0))
