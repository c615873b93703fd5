"""The cost model: by hand, and what must hold whatever the pipelines."""

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jscale.core.errors import ConfigError
from jscale.plan.execution import Holdings
from jscale.plan.exhaustive_pipelines import every_choice
from jscale.plan.pipeline_cost import (
    ServingCosts,
    bound_tokens_per_s,
    handover_ns,
    throughput,
    token_ns,
)
from tests.plan.pipelines import holdings_of, pipeline, random_holdings

MS = 1_000_000
COSTS = ServingCosts(
    block_ns=MS, hop_ns=0, sequences_per_step=1, merged_share=0.5, local_turns=1
)
LOCAL = pipeline("w0", "w0", "w0", "w0")
HALF = pipeline("w1", "w1", "w0", "w0")
OTHER_HALF = pipeline("w2", "w2", "w0", "w0")


def tokens(pipelines, costs=COSTS, **settings):
    return throughput(pipelines, costs, **settings).tokens_per_s


def test_a_local_replica_makes_a_token_in_the_time_of_its_blocks():
    assert tokens([LOCAL]) == pytest.approx(250)
    assert token_ns(LOCAL, COSTS) == 4 * MS


def test_a_source_gives_every_other_step_to_others():
    found = throughput([LOCAL, HALF], COSTS)
    assert found.tokens_per_s == pytest.approx(2 / 6 * 1000)
    assert found.tokens_per_s_of == pytest.approx([1 / 6 * 1000] * 2)
    assert found.source_loss == pytest.approx(250 - 1 / 6 * 1000)
    never = dataclasses.replace(COSTS, local_turns=0)
    # The pair alone is bound by both, and the local replica has nothing left.
    assert throughput([LOCAL, HALF], never).tokens_per_s_of == pytest.approx([0, 500])


def test_what_waits_for_the_same_blocks_runs_in_one_step():
    # 4 blocks of the local replica, and 2 for two micro-batches, the second for half.
    assert tokens([LOCAL, HALF, OTHER_HALF]) == pytest.approx(3 / 7 * 1000)
    # Not the same blocks: two steps, each after a local one.
    other = pipeline("w2", "w0", "w0", "w0")
    assert tokens([LOCAL, HALF, other]) == pytest.approx(4 / 13 * 1000)


def test_the_busiest_worker_bounds_a_pipeline_and_the_source_keeps_the_rest():
    lopsided = pipeline("w1", "w1", "w1", "w2")
    assert tokens([lopsided]) == pytest.approx(1 / 3 * 1000)
    assert tokens([LOCAL, lopsided]) == pytest.approx(250 + 1 / 3 * 1000)


def test_hops_cost_latency_and_what_few_micro_batches_cannot_hide():
    slow = dataclasses.replace(COSTS, hop_ns=2 * MS)
    pair = pipeline("w1", "w1", "w2", "w2")
    assert token_ns(pair, slow) == 8 * MS
    assert tokens([pair], slow) == pytest.approx(2 / 8 * 1000)
    assert tokens([pair]) == pytest.approx(500)


def test_waves_through_a_controller_wait_for_the_slowest_stage_and_two_hops():
    waves = dataclasses.replace(COSTS, hop_ns=MS, is_lock_step=True)
    assert tokens([pipeline("w1", "w1", "w1", "w2")], waves) == pytest.approx(200)


def test_without_demand_nothing_is_gained_by_pipelines():
    costs = dataclasses.replace(COSTS, sequences_per_step=8)
    for num_sequences in (0, 1, 8):
        alone = tokens([LOCAL], costs, num_sequences=num_sequences)
        assert tokens([LOCAL, HALF], costs, num_sequences=num_sequences) == alone
        assert alone == pytest.approx(num_sequences * 250)
    assert tokens([LOCAL, HALF], costs, num_sequences=9) < tokens(
        [LOCAL, HALF], costs, num_sequences=24
    )
    assert tokens([LOCAL, HALF], costs, num_sequences=24) == pytest.approx(
        tokens([LOCAL, HALF], costs)
    )


def test_kv_is_computed_anew_or_moved_whichever_is_sooner():
    costs = dataclasses.replace(
        COSTS, prefill_ns=10, kv_bytes=1000, link_bytes_per_s=1e9
    )
    grown = pipeline("w1", "w1", "w1", "w0")
    # Three blocks of the first stage anew, against one that w0 ran before.
    assert handover_ns(HALF, grown, 5, costs) == 5 * 30
    fast = dataclasses.replace(costs, link_bytes_per_s=1e11)
    assert handover_ns(HALF, grown, 5, fast) == pytest.approx(5 * 10)
    # To another source: every block anew.
    moved = pipeline("w1", "w1", "w2", "w2")
    assert handover_ns(HALF, moved, 5, costs) == 5 * 40


@pytest.mark.parametrize("seed", range(40))
def test_no_worker_is_busier_than_it_can_be_and_nothing_beats_the_bound(seed):
    holdings = random_holdings(seed, 1, 3, 3)
    costs = ServingCosts(merged_share=1, hop_ns=0)
    bound = bound_tokens_per_s(holdings, costs)
    for pipelines in itertools.islice(
        every_choice(holdings, max_pipelines_per_worker=2), 300
    ):
        found = throughput(pipelines, costs)
        assert found.tokens_per_s <= bound * (1 + 1e-9)
        for worker in holdings.ready:
            busy_ns = sum(
                rate * p.num_blocks_of(worker) * costs.block_ns
                for p, rate in zip(pipelines, found.steps_per_s, strict=True)
            )
            assert busy_ns <= 1e9 * (1 + 1e-9)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.25, 1.0]))
@settings(deadline=None, max_examples=60)
def test_a_pipeline_is_held_up_by_a_busy_worker_or_by_its_own_length(seed, merged):
    holdings = random_holdings(seed, 2, 3, 3)
    costs = ServingCosts(merged_share=merged, hop_ns=10_000)
    choices = every_choice(holdings, max_pipelines_per_worker=2)
    for pipelines in itertools.islice(choices, 0, 400, 40):
        found = throughput(pipelines, costs)
        faster = dataclasses.replace(costs, block_ns=costs.block_ns / 2, hop_ns=5000)
        assert throughput(pipelines, faster).tokens_per_s == pytest.approx(
            2 * found.tokens_per_s
        )
        for p, rate in zip(pipelines, found.steps_per_s, strict=True):
            stages = len(p.stages)
            assert 0 <= rate <= stages / token_ns(p, costs) * 1e9 * (1 + 1e-9)


def test_the_bound_is_what_the_scarcest_blocks_allow():
    assert bound_tokens_per_s(Holdings({}, 2), COSTS) == 0
    # Both blocks of s0 and one of t0: two workers for two blocks, but one for block 1.
    assert bound_tokens_per_s(holdings_of(1, [0b01], 2), COSTS) == 1000
    # Of 4 blocks the target holds half: twice the source alone, as BlitzScale says.
    assert bound_tokens_per_s(holdings_of(1, [0b0011], 4), COSTS) == 500


@pytest.mark.parametrize(
    "wrong",
    [
        {"block_ns": 0},
        {"sequences_per_step": 0},
        {"merged_share": 1.5},
        {"hop_ns": -1},
        {"link_bytes_per_s": 0},
    ],
)
def test_impossible_costs_are_refused(wrong):
    with pytest.raises(ConfigError):
        ServingCosts(**wrong)
