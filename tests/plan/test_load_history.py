"""What was seen: bounded, exact where it matters, the same as if all were kept."""

import bisect
import random

import pytest

from jscale.core.errors import ConfigError
from jscale.plan.load_history import NUM_LOADS_MAX, NUM_SPACINGS, Load, LoadHistory


def test_the_sum_over_gateways_has_the_time_given():
    loads = [Load(3, 1, 2, 3, 4, 5, 6), Load(9, 10, 20, 30, 40, 50, 60)]
    assert Load.total(loads, 12) == Load(12, 11, 22, 33, 44, 55, 66)
    assert Load.total([], 12) == Load(12)


def test_a_load_holds_until_the_next():
    history = LoadHistory(Load(10, num_running=1))
    history.add(Load(20, num_running=2))
    numbers = [history.at(ns).num_running for ns in (5, 10, 19, 20, 21, 99)]
    assert numbers == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("seed", range(20))
def test_it_answers_as_if_it_kept_everything_it_was_not_told_to_forget(seed):
    rng = random.Random(seed)
    now_ns, since_ns = 0, 0
    kept = [Load(0)]
    history = LoadHistory(kept[0])
    for number in range(1, NUM_LOADS_MAX):
        now_ns += rng.randrange(3)
        kept.append(Load(now_ns, num_arrived=number))
        history.add(kept[-1])
        if rng.random() < 0.2:
            since_ns = rng.randint(since_ns, now_ns)
            history.forget_before(since_ns)
        asked_ns = rng.randint(since_ns, now_ns)
        assert history.at(asked_ns) == [x for x in kept if x.now_ns <= asked_ns][-1]
        assert history.latest == kept[-1]


@pytest.mark.parametrize("memory_ns", [10, 1000, 100_000])
@pytest.mark.parametrize("steps", [(0, 1), (1, 3, 500), (7,)], ids=str)
def test_however_many_come_it_keeps_few_and_knows_all_it_is_asked_for(memory_ns, steps):
    rng = random.Random(memory_ns)
    now_ns, times = 0, [0]
    history = LoadHistory(Load(0))
    for _ in range(20_000):
        now_ns += rng.choice(steps)
        times.append(now_ns)
        history.add(Load(now_ns))
        history.forget_before(now_ns - memory_ns)
        assert history.num_loads <= NUM_LOADS_MAX
        assert history.latest.now_ns == now_ns
        asked_ns = rng.randint(max(0, now_ns - memory_ns), now_ns)
        exact_ns = times[bisect.bisect_right(times, asked_ns) - 1]
        told_ns = history.at(asked_ns).now_ns
        assert exact_ns - memory_ns // NUM_SPACINGS <= told_ns <= exact_ns


def test_told_to_forget_nothing_it_still_keeps_no_more_than_it_may():
    history = LoadHistory(Load(0))
    for ns in range(1, 5000):
        history.add(Load(ns))
        assert history.num_loads <= NUM_LOADS_MAX
        assert history.at(ns - 200).now_ns == max(0, ns - 200)


def test_what_is_forgotten_is_let_go():
    history = LoadHistory(Load(0))
    for ns in range(1, 10_000):
        history.add(Load(ns))
        history.forget_before(ns - 10)
        assert history.num_loads <= 2 * 12
    assert history.since_ns == 0


def test_a_clock_that_is_behind_does_not_turn_time_back():
    history = LoadHistory(Load(10))
    history.add(Load(7, num_waiting=3))
    assert history.latest == Load(10, num_waiting=3)


def test_idle_counts_from_the_moment_the_last_one_left():
    history = LoadHistory(Load(5))
    assert history.idle_since_ns == 5
    history.add(Load(6, num_waiting=1))
    assert history.idle_since_ns is None
    history.add(Load(7, num_running=1))
    assert history.idle_since_ns is None
    history.add(Load(8))
    history.add(Load(9))
    assert history.idle_since_ns == 8


def test_a_load_under_nothing_is_refused():
    with pytest.raises(ConfigError, match="num_waiting -1: give 0 or more"):
        Load(0, num_waiting=-1)
