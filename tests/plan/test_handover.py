"""Hand-over: KV is moved exactly where that is sooner than computing it again."""

import dataclasses

import pytest

from jscale.core.errors import ConfigError
from jscale.core.units import NS_PER_MS
from jscale.plan.execution import ExecutionPipeline
from jscale.plan.handover import (
    HandOverCosts,
    busiest_link_share,
    kv_is_moved,
    move_ns,
    recompute_ns,
)

MODEL_13B = HandOverCosts(
    kv_bytes_per_token=0.8e6, link_bytes_per_s=50e9, prefill_tokens_per_s=20_000
)


def first_moved(costs):
    """The fewest tokens that are moved, up to 10,000; None if none are."""
    moved = (n for n in range(10_001) if kv_is_moved(n, costs=costs))
    return next(moved, None)


def test_both_times_are_what_one_computes_by_hand():
    assert move_ns(1000, costs=MODEL_13B) == 18 * NS_PER_MS
    assert recompute_ns(1000, costs=MODEL_13B) == 50 * NS_PER_MS


def test_few_tokens_are_recomputed_and_many_moved():
    assert first_moved(MODEL_13B) == 59
    assert all(kv_is_moved(n, costs=MODEL_13B) for n in range(59, 10_000))


def test_nothing_is_not_worth_a_move():
    free = dataclasses.replace(MODEL_13B, setup_ns=0)
    assert not kv_is_moved(0, costs=free)


@pytest.mark.parametrize("queued_bytes", [0, 1e9, 5e9])
@pytest.mark.parametrize("queued_tokens", [0, 500, 5000])
def test_what_is_queued_on_a_link_or_a_device_shifts_the_choice(
    queued_bytes, queued_tokens
):
    costs = dataclasses.replace(
        MODEL_13B, queued_bytes=queued_bytes, queued_tokens=queued_tokens
    )
    move_s = [0.002 + (queued_bytes + n * 0.8e6) / 50e9 for n in range(5000)]
    compute_s = [(queued_tokens + n) / 20_000 for n in range(5000)]
    for n, (move, compute) in enumerate(zip(move_s, compute_s, strict=True)):
        if abs(move - compute) > 1e-6:
            assert kv_is_moved(n, costs=costs) == (move < compute), n


def test_over_a_slow_link_nothing_is_ever_moved():
    slow = dataclasses.replace(MODEL_13B, link_bytes_per_s=0.8e6 * 20_000)
    assert first_moved(slow) is None
    assert first_moved(dataclasses.replace(slow, queued_tokens=100)) == 0


def pipeline(*workers):
    return ExecutionPipeline.of_workers(workers)


@pytest.mark.parametrize(
    ("older", "newer", "share"),
    [
        ("aaaa", "bbbb", 1.0),
        ("aaaa", "aaaa", 0.0),
        ("aaaa", "bbcc", 1.0),  # a sends all of it.
        ("aabb", "cccc", 1.0),  # c receives all of it.
        ("aabb", "ccdd", 0.5),  # Two links side by side.
        ("baaa", "bbbb", 0.75),
        ("bbaa", "bbba", 0.25),
        ("abcd", "dabc", 0.25),  # Full duplex: each sends one and receives one.
    ],
)
def test_the_busiest_link_carries_what_changes_workers(older, newer, share):
    assert busiest_link_share(pipeline(*older), pipeline(*newer)) == share


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"link_bytes_per_s": 0}, "link_bytes_per_s 0: give more than 0"),
        ({"prefill_tokens_per_s": float("nan")}, "nan: give more than 0"),
        ({"kv_bytes_per_token": -1}, "kv_bytes_per_token -1: give 0 or more"),
        ({"queued_bytes": float("inf")}, "queued_bytes inf: give 0 or more"),
        ({"setup_ns": -5}, "setup_ns -5: give 0 or more"),
    ],
)
def test_costs_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(MODEL_13B, **changes)
