"""Generated arrivals have the rates and the burstiness that were asked for."""

import itertools
import random
import statistics

import pytest

from jscale.core.units import NS_PER_S
from jscale.simulation.generators import generated_ns
from jscale.simulation.spec import spec_from_text
from jscale.simulation.token_lengths import DISTRIBUTIONS, drawer


def times_s(text, seed=0):
    times = generated_ns(spec_from_text(text), random.Random(seed))
    return [time / NS_PER_S for time in times]


def variation(times):
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    return statistics.stdev(gaps) / statistics.fmean(gaps)


def test_poisson_has_its_rate_and_a_variation_of_one():
    times = times_s("poisson:rate=20,seconds=1000")
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < 1000
    assert len(times) == pytest.approx(20_000, rel=0.03)
    assert variation(times) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("cv", [0.5, 1, 4])
def test_gamma_has_its_rate_and_variation(cv):
    times = times_s(f"gamma:rate=20,cv={cv},seconds=2000")
    assert len(times) == pytest.approx(40_000, rel=0.06)
    assert variation(times) == pytest.approx(cv, rel=0.1)


def test_steps_have_a_rate_each():
    times = times_s("steps:rates=10/0/100,each_s=100")
    counts = [sum(low <= t < low + 100 for t in times) for low in (0, 100, 200)]
    assert counts[0] == pytest.approx(1_000, rel=0.1)
    assert counts[1] == 0
    assert counts[2] == pytest.approx(10_000, rel=0.1)
    assert times == sorted(times)


def test_a_burst_comes_at_once():
    assert times_s("burst:requests=50,at=2.5") == [2.5] * 50


def test_burstgpt_has_the_counts_of_its_hours():
    assert len(times_s("burstgpt:first_hour=1460,hours=1")) == pytest.approx(
        4280, rel=0.06
    )
    two = times_s("burstgpt:first_hour=0,hours=2")
    assert sum(time < 3600 for time in two) == pytest.approx(38, abs=20)
    assert max(two) < 7200


def test_lengths_have_the_medians_of_their_distribution():
    rng = random.Random(0)
    draw = drawer("chat")
    drawn = [draw(rng) for _ in range(20_000)]
    assert statistics.median(p for p, _ in drawn) == pytest.approx(1020, rel=0.03)
    assert statistics.median(o for _, o in drawn) == pytest.approx(129, rel=0.03)
    assert max(p for p, _ in drawn) == 4096


def test_azure_lengths_are_pairs_of_the_trace():
    draw = drawer("azure-code")
    rng = random.Random(1)
    drawn = [draw(rng) for _ in range(5_000)]
    assert statistics.fmean(p for p, _ in drawn) == pytest.approx(2048, rel=0.05)
    assert statistics.fmean(o for _, o in drawn) == pytest.approx(27.9, rel=0.1)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_every_distribution_draws_whole_tokens(name):
    given = {"fixed": ":prompt=3,output=4", "lognormal": ":prompt=1,output=1"}
    draw = drawer(name + given.get(name, ""))
    rng = random.Random(2)
    for _ in range(200):
        prompt, output = draw(rng)
        assert isinstance(prompt, int)
        assert isinstance(output, int)
        assert prompt >= 1
        assert output >= 1
