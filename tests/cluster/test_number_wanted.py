"""The number wanted: what people ask for, what the load asks for, and which counts."""

import dataclasses

import pytest

from jscale.cluster.messages import LoadReported
from jscale.cluster.number_wanted import NumberWanted, ScalingBounds
from jscale.core.units import NS_PER_S
from jscale.plan.scaling_policy import IDEAL, Anticipating

BOUNDS = ScalingBounds(
    num_min=1, num_max=8, scale_out_ns=2 * NS_PER_S, sequences_per_worker=10
)


def load(num_waiting):
    return LoadReported(num_waiting, 0, num_waiting, 0, 0, 0)


def follow(number, *, at_s, waiting=None, gateway="g"):
    now_ns = round(at_s * NS_PER_S)
    if waiting is not None:
        number.reported(gateway, load(waiting), now_ns)
    number.follow_load(0, now_ns)
    return number.number


def test_without_a_policy_it_is_what_people_ask_for_whatever_the_load():
    number = NumberWanted(3, None, BOUNDS)
    assert follow(number, at_s=0, waiting=500) == 3
    number.ask(12)
    assert follow(number, at_s=1) == 12
    number.one_fewer()
    assert number.number == 11


def test_none_stays_none_without_a_policy_and_is_the_least_with_one():
    number = NumberWanted(None, None, BOUNDS)
    number.at_least(4)
    number.one_fewer()
    assert follow(number, at_s=0, waiting=500) is None
    assert NumberWanted(None, IDEAL, BOUNDS).number == 1


def test_with_a_policy_it_follows_the_load_within_bounds():
    number = NumberWanted(1, IDEAL, BOUNDS)
    numbers = [follow(number, at_s=s, waiting=w) for s, w in enumerate((0, 35, 500, 0))]
    assert numbers == [1, 4, 8, 1]


def test_what_people_ask_for_is_the_least_from_then_on():
    number = NumberWanted(1, IDEAL, BOUNDS)
    follow(number, at_s=0, waiting=5)
    number.ask(3)
    assert follow(number, at_s=1) == 3
    assert follow(number, at_s=2, waiting=65) == 7
    assert follow(number, at_s=3, waiting=5) == 3
    number.ask(0)
    assert follow(number, at_s=4, waiting=0) == 0


def test_people_may_ask_for_more_than_the_load_may():
    number = NumberWanted(1, IDEAL, BOUNDS)
    follow(number, at_s=0, waiting=5)
    number.ask(20)
    assert follow(number, at_s=1, waiting=5) == 20


def test_loads_of_gateways_add_up_and_one_that_is_lost_has_none():
    number = NumberWanted(1, IDEAL, BOUNDS)
    follow(number, at_s=0, waiting=15, gateway="a")
    assert follow(number, at_s=1, waiting=15, gateway="b") == 3
    number.gateway_lost("a", 2 * NS_PER_S)
    assert follow(number, at_s=2) == 2
    number.gateway_lost("nobody", 3 * NS_PER_S)
    assert follow(number, at_s=3) == 2


def test_a_restarted_one_keeps_what_was_wanted_until_it_has_seen_enough():
    """A hold is 1 s here: half of what a scale-out takes."""
    number = NumberWanted(1, Anticipating(), BOUNDS)
    number.at_least(6)
    assert follow(number, at_s=0) == 6
    numbers = [follow(number, at_s=s / 4, waiting=12) for s in range(1, 7)]
    assert numbers == [6, 6, 6, 6, 6, 2]


def test_what_a_scale_out_takes_is_learned_from_workers_that_were_started():
    number = NumberWanted(1, Anticipating(idle_ns=0), BOUNDS)
    number.started("w1", 0)
    number.started("w2", 0)
    number.gone("w2")
    for worker in ("w1", "w1", "w2", "by-hand"):
        number.serves(worker, 8 * NS_PER_S)
    # One scale-out of 8 s was seen: so a worker is held for 4 s.
    assert follow(number, at_s=10, waiting=25) == 3
    numbers = [follow(number, at_s=s, waiting=5) for s in (11, 13.9, 14.1)]
    assert numbers == [3, 3, 1]


@pytest.mark.parametrize("policy", [None, IDEAL])
def test_asking_costs_nothing_to_those_who_made_the_bounds(policy):
    bounds = dataclasses.replace(BOUNDS)
    NumberWanted(1, policy, bounds).ask(5)
    assert bounds == BOUNDS
