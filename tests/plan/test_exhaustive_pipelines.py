"""All pipelines that are allowed, and how near to the best of them the policy comes."""

import itertools
import random
import statistics

import pytest

from jscale.plan.execution import Holdings
from jscale.plan.execution_policy import ExecutionPolicy
from jscale.plan.exhaustive_pipelines import best_pipelines, every_choice
from jscale.plan.pipeline_cost import ServingCosts, throughput
from tests.plan.pipelines import holdings_of

SIZES = ((1, 1, 4), (1, 2, 4), (2, 1, 4), (2, 2, 3), (1, 3, 3), (0, 3, 3))
"""Sources, targets, blocks."""


def every_kind_of_holdings(num_sources, num_targets, num_blocks):
    """All but for the order of the targets."""
    masks = range(1, 2**num_blocks - 1)
    for held in itertools.combinations_with_replacement(masks, num_targets):
        yield holdings_of(num_sources, held, num_blocks)


def share_of_best(holdings: Holdings, merged_share: float, max_pipelines: int) -> float:
    costs = ServingCosts(merged_share=merged_share)
    policy = ExecutionPolicy(max_pipelines, merged_share=merged_share)
    proposed = throughput(policy.propose(holdings), costs).tokens_per_s
    _, best = best_pipelines(holdings, costs, max_pipelines_per_worker=max_pipelines)
    assert proposed <= best * (1 + 1e-9), "the policy breaks a rule"
    return proposed / best if best else 1.0


def test_every_choice_of_one_target_counted_out():
    found = [
        [str(p) for p in pipelines if not p.is_local]
        for pipelines in every_choice(
            holdings_of(1, [0b01], 2), max_pipelines_per_worker=1
        )
    ]
    assert found == [[], ["t0[0] → s0[1]"]]


def test_every_choice_is_another_and_within_the_rules():
    holdings = holdings_of(1, [0b01, 0b11, 0b10], 2)
    choices = list(every_choice(holdings, max_pipelines_per_worker=1))
    assert len(choices) == len({frozenset(each) for each in choices})
    for pipelines in choices:
        assert all(holdings.can_run(p) for p in pipelines)
        helped = [p for p in pipelines if "s0" in p.workers and not p.is_local]
        assert len(helped) <= 1


@pytest.mark.parametrize("merged_share", [0, 0.25, 1])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_policy_comes_within_5_percent_of_the_best(size, merged_share):
    rng = random.Random(5)
    cases = list(every_kind_of_holdings(*size))
    cases = rng.sample(cases, min(len(cases), 40))
    shares = [share_of_best(each, merged_share, 4) for each in cases]
    assert statistics.mean(shares) >= 0.99
    assert min(shares) >= 0.95


@pytest.mark.parametrize("merged_share", [0, 0.25, 1])
def test_where_all_are_sent_the_same_in_the_same_order_it_is_the_best(merged_share):
    prefixes = [0b0001, 0b0011, 0b0111]
    for num_sources, num_targets in ((1, 1), (1, 2), (2, 2)):
        for held in itertools.combinations_with_replacement(prefixes, num_targets):
            holdings = holdings_of(num_sources, held, 4)
            assert share_of_best(holdings, merged_share, 4) >= 0.99
