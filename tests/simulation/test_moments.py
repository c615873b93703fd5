"""The moments that are drawn are those that a slow search finds."""

import random

from jscale.core.units import NS_PER_S
from jscale.simulation import moments
from tests.simulation.small_results import (
    arrival,
    record,
    result,
    scale_out_run,
    worker,
)


def test_the_sharpest_rise_is_where_most_more_come_than_before():
    rng = random.Random(0)
    for _ in range(20):
        times = sorted(rng.randrange(20 * NS_PER_S) for _ in range(40))
        rises = {
            at: sum(at <= t < at + moments.RISE_NS for t in times)
            - sum(at - moments.RISE_NS <= t < at for t in times)
            for at in times
        }
        assert rises[moments.sharpest_rise_ns(times)] == max(rises.values())


def test_first_tokens_are_in_order_and_leave_out_what_failed():
    records = [record(0, 3, 4), record(1, 2, 9), record(1, None, None)]
    assert moments.first_tokens_ns(result(records)) == [2 * NS_PER_S, 3 * NS_PER_S]


def test_a_scale_out_is_workers_that_start_together():
    found = moments.largest_scale_out(scale_out_run())
    assert found is not None
    assert found.started_ns == 2 * NS_PER_S
    assert found.num_blocks == 2
    in_s = [[at_ns / NS_PER_S for at_ns in times] for times in found.workers]
    assert in_s == [[0.25, 1.0], [0.5, 0.75]]
    assert found.duration_ns == NS_PER_S


def test_the_largest_scale_out_is_found_among_smaller_ones():
    starts = [0, 1, 5, 5.1, 5.2, 9, 9.4]
    workers = [worker(start, 20) for start in starts]
    blocks = [arrival(start + 0.5, f"w{start}", 0) for start in starts]
    found = moments.largest_scale_out(result(workers=workers, blocks=blocks))
    assert found is not None
    assert found.started_ns == 5 * NS_PER_S
    assert len(found.workers) == 3


def test_a_run_without_scaling_has_none():
    assert moments.largest_scale_out(result(workers=[worker(0, 9)])) is None
