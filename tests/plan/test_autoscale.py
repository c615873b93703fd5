"""The autoscaler over whole demand curves: bounds, no flapping, and what it costs."""

import dataclasses
import itertools
import random

import pytest

from jscale.core.units import NS_PER_MS, NS_PER_S
from jscale.plan.autoscale import NUM_SCALE_OUTS, RECHECK_NS, Autoscaler
from jscale.plan.load_history import Load
from jscale.plan.scaling_policy import (
    IDEAL,
    Anticipating,
    Fixed,
    Fleet,
    QueueProportional,
    ScalingPolicy,
    UtilisationBound,
)
from tests.plan.demand import CURVES, requests
from tests.plan.queueing import Cluster, serve

FLEET = Fleet(
    num_ready=4,
    num_coming=0,
    num_wanted=4,
    sequences_per_worker=10,
    scale_out_ns=2 * NS_PER_S,
    num_min=0,
    num_max=50,
)
POLICIES = {
    "queue": QueueProportional(),
    "utilisation": UtilisationBound(),
    "anticipating": Anticipating(),
}
SEEDS = range(2)


@dataclasses.dataclass(frozen=True)
class Scripted(ScalingPolicy):
    """Desires the number of sequences that are present."""

    every_ns: int = 0
    held_ns: int = 0

    @property
    def poll_ns(self):
        return self.every_ns

    def memory_ns(self, fleet):
        return 0

    def hold_ns(self, fleet):
        return self.held_ns

    def desired(self, history, fleet, now_ns):
        return history.latest.num_present


def wanted_at(autoscaler, now_ns, present=None, fleet=FLEET):
    if present is not None:
        autoscaler.observe(Load(now_ns, num_running=present))
    return autoscaler.wanted(fleet, now_ns)


def test_until_a_load_was_seen_it_wants_what_was_wanted_before():
    autoscaler = Autoscaler(Anticipating(), scale_out_ns=NS_PER_S)
    assert autoscaler.wanted(FLEET, 10**12) == 4
    few = dataclasses.replace(FLEET, num_max=3)
    assert autoscaler.wanted(few, 10**12) == 3


def test_one_who_has_just_come_does_not_scale_in_before_a_hold_has_passed():
    autoscaler = Autoscaler(Anticipating(hold=1), scale_out_ns=FLEET.scale_out_ns)
    begin = 77 * NS_PER_S
    for now_ns in range(begin, begin + 4 * NS_PER_S, 100 * NS_PER_MS):
        number = wanted_at(autoscaler, now_ns, 7)
        assert number == (4 if now_ns <= begin + FLEET.scale_out_ns else 1)


def test_the_number_is_the_most_desired_within_the_hold():
    rng = random.Random(5)
    autoscaler = Autoscaler(Scripted(held_ns=300), scale_out_ns=0)
    wanted_at(autoscaler, 0, 0)
    seen = [(0, 4)]
    for now_ns in range(1000, 20_000, 10):
        present = rng.randrange(51)
        seen.append((now_ns, present))
        most = max(number for ns, number in seen if ns >= now_ns - 300)
        assert wanted_at(autoscaler, now_ns, present) == most


def test_the_policy_is_asked_no_more_often_than_it_polls():
    autoscaler = Autoscaler(Scripted(every_ns=NS_PER_S), scale_out_ns=0)
    numbers = [
        wanted_at(autoscaler, ms * NS_PER_MS, 5 + ms // 100)
        for ms in range(0, 3000, 100)
    ]
    assert numbers == [5] * 10 + [15] * 10 + [25] * 10


def test_with_no_news_the_policy_is_asked_again_all_the_same():
    autoscaler = Autoscaler(Anticipating(idle_ns=NS_PER_S), scale_out_ns=0)
    fleet = dataclasses.replace(FLEET, scale_out_ns=0, num_wanted=1)
    assert wanted_at(autoscaler, 0, 0, fleet) == 1
    assert autoscaler.wanted(fleet, NS_PER_S - 1) == 1
    assert autoscaler.wanted(fleet, NS_PER_S + RECHECK_NS) == 0


def test_bounds_hold_whatever_is_desired_and_at_once():
    autoscaler = Autoscaler(Fixed(7), scale_out_ns=0)
    autoscaler.observe(Load(0))
    for least, most in itertools.combinations_with_replacement(range(1, 12), 2):
        fleet = dataclasses.replace(FLEET, num_min=least, num_max=most)
        assert autoscaler.wanted(fleet, least) == min(max(7, least), most)


def test_what_a_scale_out_takes_is_the_median_of_the_last_few():
    autoscaler = Autoscaler(Fixed(1), scale_out_ns=9)
    assert autoscaler.scale_out_ns == 9
    for took_ns in (5, 1000, 6):
        autoscaler.scaled_out(took_ns)
    assert autoscaler.scale_out_ns == 6
    for _ in range(NUM_SCALE_OUTS):
        autoscaler.scaled_out(30)
    assert autoscaler.scale_out_ns == 30


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("name", POLICIES)
def test_every_request_is_served_within_the_bounds(name, curve, seed):
    cluster = Cluster(num_min=1, num_max=6)
    demand = requests(curve, seed)
    outcome = serve(demand, POLICIES[name], cluster)
    assert len(outcome.waits_ns) == len(demand)
    assert all(1 <= number <= 6 for _, number in outcome.wanted)
    assert outcome.num_last == 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("curve", CURVES)
def test_a_number_stands_for_the_hold_before_it_falls(curve, seed):
    """So nothing flaps: a fall is never sooner than that after a rise."""
    cluster = Cluster()
    wanted = serve(requests(curve, seed), Anticipating(hold=1), cluster).wanted
    rose_ns = -NS_PER_S
    for (_, before), (now_ns, after) in itertools.pairwise(wanted):
        if after > before:
            rose_ns = now_ns
        else:
            assert now_ns - rose_ns >= cluster.scale_out_ns


@pytest.mark.parametrize("seed", SEEDS)
def test_a_step_brings_as_many_as_it_fills_and_they_go_after_it(seed):
    """20 a second for 4 s each: 80 at once, 10 workers of 8; else 8 at once, 1 or 2."""
    outcome = serve(requests("step", seed), Anticipating(), Cluster())

    def wanted_at(now_s):
        return [n for ns, n in outcome.wanted if ns <= now_s * NS_PER_S][-1]

    assert wanted_at(29) <= 3
    assert 9 <= wanted_at(50) <= 14
    assert wanted_at(95) <= 3
    assert outcome.num_most <= 16


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("curve", ["ramp", "diurnal", "step"])
def test_looking_ahead_makes_fewer_wait_than_looking_at_now(curve, seed):
    """On the way up it has asked for workers when those who need them come."""
    cluster = Cluster(scale_out_ns=3 * NS_PER_S)
    demand = requests(curve, seed)
    now = serve(demand, QueueProportional(0, cluster.scale_out_ns), cluster)
    ahead = serve(demand, Anticipating(hold=1, caution=0), cluster)
    assert sum(ahead.waits_ns) < sum(now.waits_ns)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("curve", CURVES)
def test_it_costs_less_than_keeping_workers_and_hardly_more_than_an_ideal(curve, seed):
    """With scale-outs of 0.8 s, as a 13B model takes over 400 Gb/s."""
    cluster = Cluster(scale_out_ns=800 * NS_PER_MS)
    demand = requests(curve, seed)
    ideal = serve(demand, IDEAL, dataclasses.replace(cluster, scale_out_ns=0))
    ours = serve(demand, Anticipating(), cluster)
    kept = serve(demand, QueueProportional(), cluster)
    assert ours.worker_s < 1.25 * ideal.worker_s
    assert ours.worker_s < kept.worker_s


def test_a_model_that_nobody_uses_scales_to_zero_and_back_on_the_first_request():
    cluster = Cluster(num_min=0)
    policy = Anticipating(idle_ns=10 * NS_PER_S)
    demand = [(s * NS_PER_S, NS_PER_S // 2) for s in (1, 2, 3, 40, 41)]
    outcome = serve(demand, policy, cluster)
    numbers = [number for _, number in outcome.wanted]
    assert numbers == [0, 1, 0, 1, 0]
    woke_ns = outcome.wanted[3][0]
    assert woke_ns == 40 * NS_PER_S
    assert outcome.waits_ns[3] == cluster.scale_out_ns
    assert outcome.waits_ns[4] == 0
    # 10 s after the last one, at the next time that it is asked.
    ends_ns = (demand[2][0], demand[4][0])
    for (slept_ns, _), end_ns in zip(outcome.wanted[2::2], ends_ns, strict=True):
        assert 0 <= slept_ns - end_ns - 10.5 * NS_PER_S <= 2 * cluster.scale_out_ns
