"""Proposed pipelines, by example and by every holding of a few workers."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jscale.core.ids import WorkerId
from jscale.plan.execution import (
    ExecutionPipeline,
    ExecutionPolicy,
    Holdings,
    Stage,
    propose,
    worth_recut,
)

W0, W1, W2, W3 = (WorkerId(f"w{index}") for index in range(4))


def proposed(ready, num_blocks, **settings):
    return [str(p) for p in propose(Holdings(ready, num_blocks), **settings)]


def pipeline(*workers):
    return ExecutionPipeline.of_workers(workers)


def check(holdings, policy, pipelines):
    """What must hold of any proposal."""
    complete = set(holdings.complete_workers)
    local = [p for p in pipelines if p.is_local]
    assert [p.head for p in local] == list(holdings.complete_workers)
    served = []
    for p in pipelines:
        assert p.num_blocks == holdings.num_blocks
        assert holdings.can_run(p), (holdings, str(p))
        if not p.is_local:
            targets = [w for w in p.workers if w not in complete]
            assert targets, f"{p} helps nobody"
            served += targets
    assert len(served) == len(set(served)), "a target takes part in two pipelines"
    for worker in complete:
        shared = sum(worker in p.workers for p in pipelines if not p.is_local)
        assert shared <= policy.max_pipelines_per_worker
    return set(served)


def every_holding(num_blocks, num_workers):
    blocks = range(num_blocks)
    subsets = [
        frozenset(s)
        for n in range(num_blocks + 1)
        for s in itertools.combinations(blocks, n)
    ]
    for chosen in itertools.product(subsets, repeat=num_workers):
        ready = {WorkerId(f"w{i}"): held for i, held in enumerate(chosen)}
        yield Holdings(ready, num_blocks)


def test_a_pipeline_is_what_its_stages_are():
    made = pipeline(W0, W0, W1, W0)
    assert made == ExecutionPipeline(
        (Stage(W0, 0, 2), Stage(W1, 2, 1), Stage(W0, 3, 1))
    )
    assert made.num_blocks == 4
    assert made.head == W0
    assert made.workers == (W0, W1)
    assert made.num_blocks_of(W0) == 3
    assert not made.is_local
    assert str(made) == "w0[0-1] → w1[2] → w0[3]"
    assert pipeline(W0, W0).is_local


@pytest.mark.parametrize(
    "stages",
    [
        (),
        (Stage(W0, 1, 2),),
        (Stage(W0, 0, 2), Stage(W1, 3, 1)),
        (Stage(W0, 0, 2), Stage(W1, 1, 2)),
        (Stage(W0, 0, 2), Stage(W0, 2, 2)),
    ],
    ids=["empty", "not from 0", "gap", "overlap", "same worker twice in a row"],
)
def test_stages_that_do_not_run_each_block_once_are_refused(stages):
    with pytest.raises(AssertionError):
        ExecutionPipeline(stages)


def test_holdings_know_who_is_complete_and_cannot_be_changed():
    blocks = {0, 1}
    holdings = Holdings({W0: blocks, W1: {1}, W2: set()}, 2)
    blocks.clear()
    assert holdings.complete_workers == (W0,)
    assert holdings.partial_workers == (W1,)
    assert holdings.holds(W1, 1)
    assert not holdings.holds(W3, 0)
    assert holdings == Holdings({W0: {0, 1}, W1: {1}, W2: ()}, 2)
    with pytest.raises(TypeError):
        holdings.ready[W2] = frozenset()


def test_one_arrived_block_already_serves():
    assert proposed({W0: range(4), W1: {0}}, 4) == ["w0[0-3]", "w1[0] → w0[1-3]"]


def test_the_source_runs_what_lies_between_the_blocks_of_a_target():
    assert proposed({W0: range(4), W1: {1, 3}}, 4)[1:] == [
        "w0[0] → w1[1] → w0[2] → w1[3]"
    ]


def test_targets_that_hold_the_model_together_leave_the_source_alone():
    ready = {W0: range(8), W1: {0, 1, 2, 3}, W2: {4, 5, 6, 7}, W3: {0}}
    assert proposed(ready, 8) == [
        "w0[0-7]",
        "w1[0-3] → w2[4-7]",
        "w3[0] → w0[1-7]",
    ]


def test_targets_serve_together_when_there_is_no_source_left():
    assert proposed({W1: {0, 1}, W2: {1, 2}}, 3) == ["w1[0-1] → w2[2]"]
    assert proposed({W1: {0}, W2: {1}}, 3) == []


def test_blocks_that_several_targets_hold_are_shared_evenly():
    assert proposed({W1: range(5), W2: range(1, 6)}, 6) == ["w1[0-2] → w2[3-5]"]


def test_sources_share_the_targets_and_bound_what_they_take_on():
    targets = {WorkerId(f"t{index}"): {0} for index in range(5)}
    ready = {W0: range(2), W1: range(2), **targets}
    policy = ExecutionPolicy(max_pipelines_per_worker=2)
    assert proposed(ready, 2, policy=policy)[2:] == [
        "t0[0] → w0[1]",
        "t1[0] → w1[1]",
        "t2[0] → w0[1]",
        "t3[0] → w1[1]",
    ]


def test_who_holds_more_is_helped_first():
    policy = ExecutionPolicy(max_pipelines_per_worker=1)
    ready = {W0: range(3), W1: {0}, W2: {0, 1}}
    assert proposed(ready, 3, policy=policy)[1:] == ["w2[0-1] → w0[2]"]


def test_a_target_keeps_its_place_and_its_source():
    policy = ExecutionPolicy(max_pipelines_per_worker=1)
    ready = {W0: range(4), W1: {0}, W2: {0, 1}}
    current = [pipeline(W1, W0, W0, W0)]
    kept = propose(Holdings(ready, 4), policy=policy, current=current)
    assert kept[1:] == tuple(current)


def test_pipelines_are_recut_at_1_2_3_5_and_8_of_8_blocks():
    current, cuts = (), []
    for num_ready in range(1, 9):
        holdings = Holdings({W0: range(8), W1: range(num_ready)}, 8)
        found = propose(holdings, current=current)
        if found != current:
            cuts.append(num_ready)
        current = found
    assert cuts == [1, 2, 3, 5, 8]
    assert [str(p) for p in current] == ["w0[0-7]", "w1[0-7]"]


def test_targets_that_can_do_without_their_sources_are_joined():
    ready = {W0: range(4), W1: {0, 1}, W2: {2, 3}}
    current = [pipeline(W1, W1, W0, W0), pipeline(W0, W0, W2, W2)]
    found = propose(Holdings(ready, 4), current=current)
    assert [str(p) for p in found] == ["w0[0-3]", "w1[0-1] → w2[2-3]"]
    assert propose(Holdings(ready, 4), current=found) == found


def test_a_target_that_becomes_complete_goes_on_serving_its_partner():
    ready = {W1: range(4), W2: {2, 3}}
    current = [pipeline(W1, W1, W2, W2)]
    found = propose(Holdings(ready, 4), current=current)
    assert [str(p) for p in found] == ["w1[0-3]", "w1[0-1] → w2[2-3]"]


def test_a_lost_worker_takes_its_pipelines_with_it():
    ready = {W1: {0, 1}, W3: range(4)}
    current = [pipeline(W1, W1, W0, W0), pipeline(W0, W0, W0, W0)]
    found = propose(Holdings(ready, 4), current=current)
    assert [str(p) for p in found] == ["w3[0-3]", "w1[0-1] → w3[2-3]"]


def test_a_recut_is_worth_it_when_the_share_of_the_target_grows_enough():
    two, three = pipeline(W1, W1, W0, W0), pipeline(W1, W1, W1, W0)
    assert worth_recut(two, three)
    assert not worth_recut(two, three, policy=ExecutionPolicy(recut_growth=1.6))
    assert not worth_recut(two, two)
    assert not worth_recut(three, two, sources={W0})
    assert worth_recut(three, pipeline(W1, W1, W1, W1))


def test_another_source_alone_is_not_worth_a_recut():
    assert not worth_recut(pipeline(W1, W0), pipeline(W1, W2), sources={W0, W2})
    assert not worth_recut(pipeline(W1, W0), pipeline(W1, W2))


def test_every_holding_of_a_few_workers_gives_sound_pipelines():
    for num_blocks, num_workers in ((1, 3), (2, 3), (3, 3), (4, 3)):
        for policy in (ExecutionPolicy(), ExecutionPolicy(max_pipelines_per_worker=1)):
            for holdings in every_holding(num_blocks, num_workers):
                pipelines = propose(holdings, policy=policy)
                served = check(holdings, policy, pipelines)
                if holdings.complete_workers and policy.max_pipelines_per_worker > 1:
                    assert served == set(holdings.partial_workers), "someone idles"


def test_every_proposal_is_stable():
    for holdings in every_holding(3, 3):
        first = propose(holdings)
        again = propose(holdings, current=first)
        assert sorted(map(str, again)) == sorted(map(str, first))


@st.composite
def histories(draw):
    """Holdings one after another: blocks arrive, now and then a worker leaves."""
    num_blocks = draw(st.integers(1, 6))
    names = [WorkerId(f"w{index}") for index in range(draw(st.integers(1, 6)))]
    event = st.tuples(st.sampled_from(names), st.integers(-1, num_blocks - 1))
    ready = {names[0]: set(range(num_blocks))}
    history = [Holdings(ready, num_blocks)]
    for worker, block in draw(st.lists(event, max_size=24)):
        if block < 0:
            ready.pop(worker, None)
        else:
            ready.setdefault(worker, set()).add(block)
        history.append(Holdings(ready, num_blocks))
    return history


@given(histories(), st.integers(0, 3), st.integers(2, 4))
@settings(deadline=None, max_examples=150)
def test_pipelines_stay_sound_while_blocks_arrive_and_workers_leave(
    history, max_pipelines_per_worker, max_targets_per_pipeline
):
    policy = ExecutionPolicy(max_pipelines_per_worker, max_targets_per_pipeline)
    current = ()
    for holdings in history:
        current = propose(holdings, policy=policy, current=current)
        check(holdings, policy, current)
        assert sorted(map(str, propose(holdings, policy=policy, current=current))) == (
            sorted(map(str, current))
        ), "proposing again changes something"
