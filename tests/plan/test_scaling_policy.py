"""What each policy desires at one moment, and what none may be told."""

import dataclasses
import math

import pytest

from jscale.core.errors import ConfigError
from jscale.core.units import NS_PER_S
from jscale.plan.load_history import Load, LoadHistory
from jscale.plan.scaling_policy import (
    IDEAL,
    Anticipating,
    Fixed,
    Fleet,
    QueueProportional,
    UtilisationBound,
)

FLEET = Fleet(
    num_ready=2,
    num_coming=0,
    num_wanted=2,
    sequences_per_worker=10,
    scale_out_ns=NS_PER_S,
    num_max=100,
)
POLICIES = (
    Fixed(3),
    IDEAL,
    QueueProportional(),
    UtilisationBound(),
    Anticipating(),
    Anticipating(hold=2, caution=1),
)


def after(*loads):
    """The history of loads given as (seconds, present, arrived, finished)."""
    made = [
        Load(
            round(s * NS_PER_S),
            num_running=present // 2,
            num_waiting=present - present // 2,
            num_arrived=arrived,
            num_finished=finished,
        )
        for s, present, arrived, finished in loads
    ]
    history = LoadHistory(made[0])
    for load in made[1:]:
        history.add(load)
    return history


def desired(policy, history, fleet=FLEET):
    return policy.desired(history, fleet, history.latest.now_ns)


@pytest.mark.parametrize(
    ("present", "number"), [(0, 0), (1, 1), (10, 1), (11, 2), (20, 2), (101, 11)]
)
def test_in_proportion_to_the_queue_is_as_many_as_it_fills(present, number):
    for policy in (IDEAL, QueueProportional()):
        assert desired(policy, after((0, present, present, 0))) == number


@pytest.mark.parametrize(
    ("present", "number"),
    [(0, 0), (5, 1), (11, 2), (12, 2), (18, 2), (19, 3), (45, 5), (46, 6)],
)
def test_within_its_bounds_utilisation_changes_nothing(present, number):
    """Two workers, 20 sequences at once: out above 18 of them, in below 12."""
    assert desired(UtilisationBound(), after((0, present, present, 0))) == number


def test_utilisation_scales_out_from_nothing():
    none = dataclasses.replace(FLEET, num_wanted=0, num_ready=0, num_min=0)
    assert desired(UtilisationBound(), after((0, 1, 1, 0)), none) == 1


def test_a_rise_is_taken_to_go_on_for_as_long_as_a_scale_out_takes():
    """40 more in a second, of 40 arrivals: 40 − √40 more come in the next."""
    rising = after((0, 20, 20, 0), (1, 60, 60, 0))
    assert desired(Anticipating(), rising) == math.ceil((60 + 40 - math.sqrt(40)) / 10)
    twice = dataclasses.replace(FLEET, scale_out_ns=NS_PER_S // 2)
    history = after((0, 20, 20, 0), (0.5, 40, 40, 0), (1, 60, 60, 0))
    ahead = 60 + 20 - math.sqrt(20)
    assert desired(Anticipating(), history, twice) == math.ceil(ahead / 10)


def test_a_rise_that_chance_explains_is_met_with_caution_alone():
    """3 more in a second of 16 arrivals and 13 ends: less than √29."""
    history = after((0, 40, 100, 60), (1, 43, 116, 73))
    for caution in (0, 0.5, 1, 3):
        ahead = 43 + caution * math.sqrt(29)
        number = desired(Anticipating(caution=caution), history)
        assert number == math.ceil(ahead / 10)


def test_a_fall_is_not_anticipated():
    falling = after((0, 60, 60, 0), (1, 30, 60, 30))
    assert desired(Anticipating(caution=0), falling) == 3


def test_a_gateway_that_took_its_counts_along_does_no_harm():
    history = after((0, 60, 900, 840), (1, 30, 400, 370))
    assert desired(Anticipating(), history) == 3


def test_the_last_worker_stays_for_the_idle_time():
    policy = Anticipating(idle_ns=5 * NS_PER_S)
    history = after((0, 4, 4, 0), (1, 0, 4, 4))
    for now_s, number in ((1, 1), (5.9, 1), (6, 0), (60, 0)):
        assert policy.desired(history, FLEET, round(now_s * NS_PER_S)) == number
    history.add(Load(61 * NS_PER_S, num_waiting=1, num_arrived=5, num_finished=4))
    assert policy.desired(history, FLEET, 61 * NS_PER_S) == 1


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_more_demand_never_wants_fewer(policy):
    """Present after a second; as many as that, and the steady stream, arrived."""
    numbers = [
        desired(policy, after((0, 30, 30, 0), (1, present, 30 + present, 30)))
        for present in range(300)
    ]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("policy", POLICIES[2:], ids=repr)
def test_larger_workers_are_never_wanted_in_greater_number(policy):
    for present in (1, 9, 57, 300):
        numbers = []
        for size in range(1, 80):
            # As much used as before, so that a bound is passed in the same direction.
            fleet = dataclasses.replace(FLEET, sequences_per_worker=size, num_wanted=0)
            numbers.append(desired(policy, after((0, present, present, 0)), fleet))
        assert numbers == sorted(numbers, reverse=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dataclasses.replace(FLEET, sequences_per_worker=0), "with 0 seq"),
        (lambda: dataclasses.replace(FLEET, num_min=-1), "fleet of -1 to 100"),
        (lambda: dataclasses.replace(FLEET, num_min=101), "fleet of 101 to 100"),
        (lambda: dataclasses.replace(FLEET, num_min=0, num_max=0), "fleet of 0 to 0"),
        (lambda: dataclasses.replace(FLEET, scale_out_ns=-1), "scale_out_ns -1"),
        (lambda: UtilisationBound(out_above=0.5), "bounds 0.6 and 0.5: give"),
        (lambda: UtilisationBound(out_above=1.1), "bounds 0.6 and 1.1: give"),
        (lambda: Anticipating(caution=-0.1), "caution -0.1: give 0 or more"),
        (lambda: Anticipating(hold=float("nan")), "hold nan: give 0 or more"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
