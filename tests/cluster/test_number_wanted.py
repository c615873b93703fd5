"""The number wanted: what people ask for, what the load asks for, and which counts."""

import pytest

from jscale.cluster.events import LauncherAttached
from jscale.cluster.gateway_messages import LoadReported, RememberWanted
from jscale.cluster.number_wanted import NUM_STARTED_MAX, NumberWanted, ScalingBounds
from jscale.core.errors import ConfigError
from jscale.core.ids import WorkerId
from jscale.core.units import NS_PER_S
from jscale.plan.scaling_policy import IDEAL, Anticipating

BOUNDS = ScalingBounds(num_min=1, num_max=8, scale_out_ns=2 * NS_PER_S)

WORKERS = tuple(WorkerId(f"w{index}") for index in range(4))


def number_of(number, policy, *, epoch=0):
    return NumberWanted(number, policy, BOUNDS, sequences_per_worker=10, epoch=epoch)


def load(num_waiting):
    return LoadReported(num_waiting, 0, num_waiting, 0, 0, 0)


def follow(number, *, at_s, waiting=None, gateway="g"):
    now_ns = round(at_s * NS_PER_S)
    if waiting is not None:
        number.reported(gateway, load(waiting), now_ns)
    number.follow_load(0, now_ns)
    return number.number


def test_without_a_policy_it_is_what_people_ask_for_whatever_the_load():
    number = number_of(3, None)
    assert follow(number, at_s=0, waiting=500) == 3
    number.ask(12)
    assert follow(number, at_s=1) == 12
    number.one_fewer()
    assert number.number == 11


def test_none_stays_none_without_a_policy_and_is_the_least_with_one():
    number = number_of(None, None)
    number.joined(4, is_back=False)
    number.one_fewer()
    assert follow(number, at_s=0, waiting=500) is None
    assert number_of(None, IDEAL).number == 1


def test_with_a_policy_it_follows_the_load_within_bounds():
    number = number_of(1, IDEAL)
    numbers = [follow(number, at_s=s, waiting=w) for s, w in enumerate((0, 35, 500, 0))]
    assert numbers == [1, 4, 8, 1]


def test_what_people_ask_for_is_the_least_from_then_on():
    number = number_of(1, IDEAL)
    follow(number, at_s=0, waiting=5)
    number.ask(3)
    assert follow(number, at_s=1) == 3
    assert follow(number, at_s=2, waiting=65) == 7
    assert follow(number, at_s=3, waiting=5) == 3
    number.ask(0)
    assert follow(number, at_s=4, waiting=0) == 0


def test_people_may_ask_for_more_than_the_load_may():
    number = number_of(1, IDEAL)
    follow(number, at_s=0, waiting=5)
    number.ask(20)
    assert follow(number, at_s=1, waiting=5) == 20


def test_loads_of_gateways_add_up_and_one_that_is_lost_has_none():
    number = number_of(1, IDEAL)
    follow(number, at_s=0, waiting=15, gateway="a")
    assert follow(number, at_s=1, waiting=15, gateway="b") == 3
    number.gateway_lost("a", 2 * NS_PER_S)
    assert follow(number, at_s=2) == 2
    number.gateway_lost("nobody", 3 * NS_PER_S)
    assert follow(number, at_s=3) == 2


def test_a_restarted_one_keeps_what_was_wanted_until_it_has_seen_enough():
    """A hold is 1 s here: half of what a scale-out takes."""
    number = number_of(1, Anticipating())
    number.joined(6, is_back=True)
    assert follow(number, at_s=0) == 6
    numbers = [follow(number, at_s=s / 4, waiting=12) for s in range(1, 7)]
    assert numbers == [6, 6, 6, 6, 6, 2]


def test_what_a_scale_out_takes_is_learned_from_workers_that_were_started():
    number = number_of(1, Anticipating(idle_ns=0))
    number.started("w1", 0)
    number.started("w2", 0)
    number.gone("w2")
    for worker in ("w1", "w1", "w2", "by-hand"):
        number.serves(worker, 8 * NS_PER_S)
    # One scale-out of 8 s was seen: so a worker is held for 4 s.
    assert follow(number, at_s=10, waiting=25) == 3
    numbers = [follow(number, at_s=s, waiting=5) for s in (11, 13.9, 14.1)]
    assert numbers == [3, 3, 1]


def test_a_restarted_one_learns_the_latest_number_that_others_wanted():
    number = number_of(1, None, epoch=7)
    for wanted, epoch, then in [
        (4, 3, 4),
        (9, 2, 4),  # An older one's.
        (None, 5, 4),
        (5, 6, 5),
        (8, 7, 5),  # Its own, told by a gateway that is behind.
    ]:
        number.learn(wanted, epoch)
        assert number.number == then
    number.ask(2)
    number.learn(6, 6)
    assert number.number == 2


def test_it_remembers_only_the_last_workers_that_were_started():
    number = number_of(1, Anticipating(idle_ns=0))
    for index in range(NUM_STARTED_MAX + 1):
        number.started(f"w{index}", 0)
    number.serves("w0", 100 * NS_PER_S)  # Forgotten: nobody holds workers for 50 s.
    assert follow(number, at_s=100, waiting=25) == 3
    assert follow(number, at_s=101.1, waiting=5) == 1


@pytest.mark.parametrize(("least", "most"), [(-1, 4), (5, 4), (0, 0)])
def test_bounds_that_are_none_are_refused(least, most):
    with pytest.raises(ConfigError, match=f"between {least} and {most} workers"):
        ScalingBounds(num_min=least, num_max=most)


def test_what_was_there_counts_unless_somebody_knows_better():
    """Of four workers two were about to go when the manager was killed."""
    number = number_of(1, None, epoch=2)
    number.launcher_attached(LauncherAttached(WORKERS))
    assert number.number == 4
    number.learn(2, 1)
    assert number.number == 2
    number.joined(4, is_back=True)
    number.launcher_attached(LauncherAttached(WORKERS))
    assert number.number == 2
    number.joined(3, is_back=False)  # Started by hand, as one more.
    assert number.number == 3


def test_a_launcher_keeps_the_number_for_a_manager_that_no_gateway_remembers():
    number = number_of(1, None, epoch=1)
    number.launcher_attached(LauncherAttached())
    assert number.to_remember() is None  # Nobody asked for anything yet.
    number.ask(3)
    told = number.to_remember()
    assert told == RememberWanted(3, 1)
    assert number.to_remember() is None
    later = number_of(1, None, epoch=2)
    known = LauncherAttached(WORKERS, told.num_workers, told.epoch)
    later.launcher_attached(known)
    assert later.number == 3
    assert later.to_remember() == RememberWanted(3, 2)
    later.launcher_attached(known)
    assert later.to_remember() == RememberWanted(3, 2)
