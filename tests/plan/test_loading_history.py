"""Policies over a whole scale-out; and re-cuts against the best moments for them."""

import pytest

from jscale.core.topology import Topology
from jscale.plan.execution import ExecutionPipeline
from jscale.plan.execution_policy import ExecutionPolicy, best_growth, recut_loss
from jscale.plan.kinds import multicast
from jscale.plan.loading_history import (
    Moment,
    handover_tokens,
    loading_history,
    moments_of,
)
from jscale.plan.pipeline_cost import ServingCosts, handover_ns, throughput
from jscale.plan.pipeline_policies import LambdaScalePolicy, LocalOnlyPolicy
from tests.plan.pipelines import holdings_of, pipeline

S = 1_000_000_000
GIB = 1 << 30


def moments_for(num_sources, num_targets, kind="binomial", num_blocks=4):
    plan = multicast(num_sources, num_targets, 64, kind=kind)
    topology = Topology.uniform(plan.members, GIB)
    sources = plan.members[:num_sources]
    found = moments_of(
        plan, sources, topology, num_blocks=num_blocks, size_bytes=4 * GIB
    )
    return list(found)


def even_moments(num_blocks, load_s):
    """One source, one target, whose blocks come evenly and in order."""
    return [
        Moment(
            load_s * S * num_held // num_blocks,
            holdings_of(1, [(1 << num_held) - 1], num_blocks),
        )
        for num_held in range(num_blocks + 1)
    ]


def test_moments_begin_with_the_sources_and_end_with_everybody_complete():
    moments = moments_for(2, 3)
    assert moments[0].at_ns == 0
    assert moments[0].holdings.complete_workers == ("w0", "w1")
    assert len(moments[-1].holdings.complete_workers) == 5
    assert len(moments) == 1 + 3 * 4
    times = [moment.at_ns for moment in moments]
    assert times == sorted(times)
    assert 4 * S <= times[-1] <= 5 * S


def test_loading_without_serving_brings_what_the_source_brings():
    moments = even_moments(4, load_s=4)
    costs = ServingCosts()
    found = loading_history(LocalOnlyPolicy(), moments, costs)
    alone = throughput([ExecutionPipeline.local("s0", 4)], costs).tokens_per_s
    assert found.tokens == pytest.approx(4 * alone)
    assert (found.num_opened, found.handed_over_tokens) == (0, 0)
    assert found.first_help_ns is None


def test_with_one_source_one_block_helps_long_before_anything_else_could():
    # λScale, whose sources take no part, gains nothing before a target is complete.
    moments = moments_for(1, 7)
    load_ns = moments[-1].at_ns
    ours = loading_history(ExecutionPolicy(), moments)
    theirs = loading_history(LambdaScalePolicy(1), moments)
    assert ours.first_help_ns <= 0.3 * load_ns
    assert theirs.first_help_ns is None or theirs.first_help_ns > 0.9 * load_ns
    assert ours.tokens - ours.handed_over_tokens > 1.5 * theirs.tokens
    assert ours.lowest_tokens_per_s >= theirs.lowest_tokens_per_s * (1 - 1e-9)


def test_who_goes_local_hands_over_what_the_pipeline_had():
    costs = ServingCosts(sequences_per_step=2, prefill_ns=1000, link_bytes_per_s=1)
    before = (pipeline("s0", "s0"), pipeline("t0", "s0"))
    after = (pipeline("s0", "s0"), pipeline("t0", "t0"))
    rate = throughput(after, costs).tokens_per_s_of[1]
    lost = handover_tokens(before, after, costs, context_tokens=10)
    # Two micro-batches of 2 sequences of 10 tokens, anew through both blocks.
    assert lost == pytest.approx(rate * 2 * 2 * 10 * 2 * 1000 / S)
    assert handover_tokens(before, before, costs) == 0


def best_net_tokens(num_blocks, load_s, context_tokens, costs):
    """By every choice of what the target runs at each moment."""
    moments = even_moments(num_blocks, load_s)
    local = ExecutionPipeline.local("s0", num_blocks)

    def choice(num_run):
        if not num_run:
            return (local,)
        if num_run == num_blocks:
            return (local, ExecutionPipeline.local("t0", num_blocks))
        cut = ["t0"] * num_run + ["s0"] * (num_blocks - num_run)
        return (local, pipeline(*cut))

    best = {0: 0.0}
    for number, moment in enumerate(moments):
        ends = moments[min(number + 1, num_blocks)].at_ns
        able = [num_blocks] if number == num_blocks else range(number + 1)
        best = {
            num_run: max(
                tokens
                - handover_tokens(
                    choice(before), choice(num_run), costs, context_tokens
                )
                for before, tokens in best.items()
            )
            + throughput(choice(num_run), costs).tokens_per_s
            * (ends - moment.at_ns)
            / S
            for num_run in able
        }
    return best[num_blocks]


@pytest.mark.parametrize(
    ("load_s", "context_tokens"),
    [(1, 16), (4, 16), (4, 128), (16, 16), (16, 128), (16, 512)],
)
@pytest.mark.parametrize("link_bytes_per_s", [1, 50e9], ids=["recomputed", "moved"])
def test_recuts_are_within_5_percent_of_the_best_moments_for_them(
    link_bytes_per_s, load_s, context_tokens
):
    costs = ServingCosts(link_bytes_per_s=link_bytes_per_s)
    before, after = pipeline("t0", *["s0"] * 7), pipeline("t0", "t0", *["s0"] * 6)
    context = context_tokens * 2 * costs.sequences_per_step
    share = handover_ns(before, after, context, costs) / (load_s * S)
    found = loading_history(
        ExecutionPolicy(recut_growth=best_growth(share, 8)),
        even_moments(8, load_s),
        costs,
        context_tokens=context_tokens,
    )
    net = found.tokens - found.handed_over_tokens
    best = best_net_tokens(8, load_s, context_tokens, costs)
    assert 0.95 * best <= net <= best * (1 + 1e-9)


def test_where_handovers_are_dear_targets_wait_until_they_hold_the_model_together():
    costs = ServingCosts(link_bytes_per_s=GIB)  # Moving KV takes as long as loading.
    told = ExecutionPolicy(handover_share=0.4)
    for num_sources, num_targets in ((2, 6), (4, 12)):
        moments = moments_for(num_sources, num_targets)
        waiting = loading_history(told, moments, costs)
        eager = loading_history(ExecutionPolicy(), moments, costs)
        assert waiting.num_opened < eager.num_opened
        assert (
            waiting.tokens - waiting.handed_over_tokens
            > eager.tokens - eager.handed_over_tokens
        )
    # With one source there is nothing to wait for.
    holdings = holdings_of(1, [0b01, 0b01], 2)
    assert told.propose(holdings) == ExecutionPolicy().propose(holdings)


def test_the_dearer_a_handover_the_more_a_share_must_grow():
    growths = [best_growth(share, 8) for share in (0.001, 0.02, 0.03, 0.05, 0.3)]
    assert growths == sorted(growths)
    assert growths[0] == 1
    assert growths[2] == 1.5
    for share in (0.005, 0.01, 0.02, 0.03, 0.05):
        best = recut_loss(best_growth(share, 8), share, 8)
        assert recut_loss(1.5, share, 8) <= best + 0.05


def test_a_recut_at_every_block_costs_only_handovers_and_none_only_waiting():
    assert recut_loss(1, 0.01, 8) == pytest.approx(7 * 0.01)
    assert recut_loss(100, 0.01, 4) == pytest.approx(0.01 + (0 + 1 + 2) / 16)
