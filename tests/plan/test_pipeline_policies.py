"""What other systems would open, claim by claim."""

import pytest

from jscale.core.errors import ConfigError
from jscale.core.ids import WorkerId
from jscale.plan.execution import Holdings
from jscale.plan.pipeline_cost import ServingCosts, throughput
from jscale.plan.pipeline_policies import (
    PIPELINE_POLICIES,
    BlitzScalePolicy,
    LambdaScalePolicy,
    LocalOnlyPolicy,
)
from tests.plan.pipelines import holdings_of, pipeline, random_holdings


def texts(pipelines):
    return [str(p) for p in pipelines]


def test_load_then_serve_opens_local_replicas_alone():
    holdings = holdings_of(2, [0b01, 0b10], 2)
    assert texts(LocalOnlyPolicy().propose(holdings)) == ["s0[0-1]", "s1[0-1]"]


def test_paper_lambdascale_the_t_th_targets_of_all_subgroups_form_pipeline_t():
    # Algorithm 2 with k = 2: (t0, t1) hold the model together, (t2, t3) do not yet.
    holdings = holdings_of(2, [0b0011, 0b1100, 0b0011, 0b0100], 4)
    assert texts(LambdaScalePolicy(2).propose(holdings)) == [
        "s0[0-3]",
        "s1[0-3]",
        "t0[0-1] → t1[2-3]",
    ]


def test_paper_lambdascale_with_one_source_opens_nothing_before_a_target_is_complete():
    holdings = holdings_of(1, [0b0111, 0b1110], 4)
    assert texts(LambdaScalePolicy().propose(holdings)) == ["s0[0-3]"]
    holdings = holdings_of(1, [0b0111, 0b1111], 4)
    assert texts(LambdaScalePolicy().propose(holdings)) == ["s0[0-3]", "t1[0-3]"]


def test_paper_lambdascale_pipelines_stay_until_all_transfers_have_ended():
    policy = LambdaScalePolicy(2)
    opened = policy.propose(holdings_of(2, [0b0011, 0b1100, 0], 4))
    later = policy.propose(holdings_of(2, [0b1111, 0b1111, 0b0111], 4), opened)
    assert later == opened
    ended = policy.propose(holdings_of(2, [0b1111] * 3, 4), later)
    assert texts(ended) == [f"{w}[0-3]" for w in ("s0", "s1", "t0", "t1", "t2")]


def test_lambdascale_without_a_number_takes_who_is_complete_and_in_no_pipeline():
    policy = LambdaScalePolicy(None)
    opened = policy.propose(holdings_of(2, [0b0011, 0b1100, 0b0001], 4))
    assert texts(opened) == ["s0[0-3]", "s1[0-3]", "t0[0-1] → t1[2-3]"]
    # t0 ends in its pipeline and waits for the others; t2 ends in none.
    later = policy.propose(holdings_of(2, [0b1111, 0b1101, 0b1111], 4), opened)
    assert texts(later) == ["s0[0-3]", "s1[0-3]", "t2[0-3]", "t0[0-1] → t1[2-3]"]


def test_paper_lambdascale_waits_for_targets_that_hold_nothing_yet():
    workers = {WorkerId("s0"): range(2), WorkerId("t0"): range(2), WorkerId("t1"): ()}
    found = LambdaScalePolicy().propose(Holdings(workers, 2))
    assert texts(found) == ["s0[0-1]", "t0[0-1]"]


def test_paper_blitzscale_a_pair_serves_twice_as_much_at_half_the_layers():
    costs = ServingCosts(hop_ns=0)
    alone = throughput([pipeline("s0", "s0", "s0", "s0")], costs).tokens_per_s
    rates = []
    for held in (0b0001, 0b0011, 0b0111):
        found = BlitzScalePolicy().propose(holdings_of(1, [held], 4))
        rates.append(throughput(found, costs).tokens_per_s / alone)
    assert rates == pytest.approx([4 / 3, 2, 2])


def test_paper_blitzscale_pairs_each_source_with_one_target_and_keeps_the_pair():
    holdings = holdings_of(2, [0b0001, 0b0011, 0b0111], 4)
    policy = BlitzScalePolicy()
    first = policy.propose(holdings)
    assert texts(first) == ["t0[0] → s0[1-3]", "t1[0-1] → s1[2-3]"]
    done = holdings_of(2, [0b1111, 0b0111, 0b0111], 4)
    assert texts(policy.propose(done, first)) == [
        "t0[0-3]",
        "t1[0-1] → s1[2-3]",
        "t2[0-1] → s0[2-3]",
    ]


def test_paper_blitzscale_layers_count_from_the_first_on():
    assert texts(BlitzScalePolicy().propose(holdings_of(1, [0b1110], 4))) == ["s0[0-3]"]


@pytest.mark.parametrize("name", PIPELINE_POLICIES)
@pytest.mark.parametrize("seed", range(60))
def test_any_policy_is_sound_and_proposes_the_same_again(name, seed):
    holdings = random_holdings(seed, 3, 5, 5)
    policy = PIPELINE_POLICIES[name]
    found = policy.propose(holdings)
    assert all(holdings.can_run(p) for p in found)
    targets = [
        worker
        for p in found
        for worker in p.workers
        if worker not in holdings.complete_workers
    ]
    assert len(targets) == len(set(targets)), "a target takes part in two pipelines"
    assert sorted(texts(policy.propose(holdings, found))) == sorted(texts(found))


def test_a_number_of_sources_that_cannot_be_is_refused():
    with pytest.raises(ConfigError):
        LambdaScalePolicy(0)
