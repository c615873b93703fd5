"""Metrics are the field's, on runs small enough to count by hand."""

import dataclasses
import math
import random

import pytest

from jscale.core.errors import ConfigError
from jscale.core.units import NS_PER_S
from jscale.simulation import metrics
from tests.simulation.small_results import record, result, worker


def test_ttft_is_from_arrival_to_the_first_token():
    assert metrics.ttft_s(record(2, 2.5, 3)) == 0.5
    assert metrics.ttft_s(record(2, None, None)) == math.inf


def test_tpot_is_the_rest_over_the_other_tokens():
    assert metrics.tpot_s(record(2, 2.5, 3.5, output=11)) == pytest.approx(0.1)
    assert metrics.tpot_s(record(2, 2.5, 2.5, output=1)) == 0
    assert metrics.tpot_s(record(2, 2.5, None)) == math.inf


def test_percentiles_are_by_nearest_rank_like_a_dumb_count():
    rng = random.Random(0)
    for count in range(1, 40):
        values = sorted(rng.randrange(20) for _ in range(count))
        for hundredths in range(1, 101):
            share = hundredths / 100
            dumb = min(
                v
                for v in values
                if sum(w <= v for w in values) * 100 >= hundredths * count
            )
            assert metrics.percentile(values, share) == dumb


def test_a_spread_of_nothing_is_nothing():
    assert metrics.spread([]) == metrics.Spread(0, 0, 0, 0, 0)
    assert metrics.spread([3.0]) == metrics.Spread(3, 3, 3, 3, 3)


def test_the_failed_count_as_endless_and_outside_the_objective():
    records = [record(0, 0.5, 1.5) for _ in range(8)] + [record(0, None, None)] * 2
    summary = metrics.summarise(result(records), metrics.Objective(0.5, 0.1))
    assert summary.num_failed == 2
    assert summary.ttft_s.p50 == 0.5
    assert summary.ttft_s.p90 == math.inf
    assert summary.share_in_objective == 0.8
    assert summary.goodput_per_s == pytest.approx(8 / 1.5)


def test_an_objective_is_kept_up_to_its_bound():
    objective = metrics.Objective(ttft_s=0.5, tpot_s=0.1)
    assert objective.is_kept(record(1, 1.5, 2.5))
    assert not objective.is_kept(record(1, 1.6, 2.5))
    assert not objective.is_kept(record(1, 1.5, 2.6))


@pytest.mark.parametrize("bad", [{"ttft_s": 0}, {"tpot_s": -1}, {"ttft_s": math.nan}])
def test_an_objective_takes_some_time(bad):
    with pytest.raises(ConfigError, match="give seconds over 0"):
        metrics.Objective(**bad)


def test_accelerators_are_paid_from_start_to_end():
    workers = [worker(0, 10), worker(5, 7.5, gpus=4)]
    assert metrics.accelerator_s(workers) == 20
    summary = metrics.summarise(result(workers=workers))
    assert summary.cost(price_per_hour=180) == pytest.approx(1.0)


def test_the_fleet_changes_where_workers_come_and_go():
    workers = [worker(0, 10), worker(2, 6), worker(6, 8)]
    in_s = [(at_ns / NS_PER_S, n) for at_ns, n in metrics.fleet(workers)]
    assert in_s == [(0, 1), (2, 2), (8, 1), (10, 0)]
    assert metrics.summarise(result(workers=workers)).num_workers_max == 2


def test_a_scale_out_lasts_from_the_request_to_the_first_step_and_to_the_last_block():
    workers = [
        worker(0, 10, serving_s=0, complete_s=0),
        worker(2, 9, serving_s=2.25, complete_s=3),
        worker(2, 9, serving_s=2.5, complete_s=4),
        worker(3, 3.5),
    ]
    summary = metrics.summarise(result(workers=workers))
    assert summary.num_scale_outs == 3
    assert summary.serving_s.p50 == 0.25
    assert summary.serving_s.largest == 0.5
    assert summary.complete_s.mean == 1.5


def test_the_duration_ends_with_the_last_token():
    records = [record(0, 1, 4), record(3, 3.5, 3.75, num_handovers=2)]
    summary = metrics.summarise(result(records, tokens=(5, 7)))
    assert summary.duration_s == 4
    assert summary.tokens_per_s == 3
    assert summary.num_handovers == 2


def test_a_summary_is_plain_numbers():
    summary = metrics.summarise(result([record(0, 1, 2)], [worker(0, 2, 0, 0)]))
    numbers = dataclasses.asdict(summary)
    assert all(isinstance(value, int | float | dict) for value in numbers.values())
