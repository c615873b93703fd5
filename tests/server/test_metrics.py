import pytest

from jscale.core.units import NS_PER_MS, NS_PER_S
from jscale.server.metrics import NUM_TTFTS_KEPT, ServingMetrics, percentile


def test_percentile_is_the_least_value_that_so_many_do_not_exceed():
    values = [5, 1, 4, 2, 3]
    assert [percentile(values, p) for p in (0, 20, 50, 80, 81, 100)] == [
        *(1, 1, 3, 4, 5, 5)
    ]
    assert percentile([], 50) == 0


def test_tokens_per_second_are_those_of_the_last_two_seconds():
    metrics = ServingMetrics(now_ns=0)
    for tick in range(1000):
        metrics.add_token(tick * 10 * NS_PER_MS)
    assert metrics.speed(10 * NS_PER_S).tokens_per_s == pytest.approx(100, rel=0.05)
    assert metrics.speed(13 * NS_PER_S).tokens_per_s == 0
    assert metrics.speed(13 * NS_PER_S).num_tokens == 1000


def test_a_young_gateway_does_not_look_slow():
    metrics = ServingMetrics(now_ns=0)
    for tick in range(50):
        metrics.add_token(tick * 10 * NS_PER_MS)
    assert metrics.speed(NS_PER_S // 2).tokens_per_s == pytest.approx(100)


def test_times_to_first_token_are_of_the_last_requests():
    metrics = ServingMetrics(now_ns=0)
    assert metrics.speed(1).ttft_p90_ms == 0
    metrics.add_first_token(10**12)
    for _ in range(NUM_TTFTS_KEPT):
        metrics.add_first_token(7 * NS_PER_MS)
    speed = metrics.speed(1)
    assert (speed.ttft_p50_ms, speed.ttft_p90_ms) == (7, 7)
