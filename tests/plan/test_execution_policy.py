"""Proposed pipelines, by example and by every holding of a few workers."""

import gc
import itertools
import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jscale.core.ids import WorkerId
from jscale.plan.execution import ExecutionPipeline, Holdings
from jscale.plan.execution_policy import DEFAULT_POLICY, ExecutionPolicy, worth_recut
from jscale.plan.pipeline_cost import throughput
from jscale.plan.sharing import share_blocks
from jscale.plan.source_load import cut_alike, gain_of_another, recut_alike, source_rate

W0, W1, W2, W3 = (WorkerId(f"w{index}") for index in range(4))


def propose(holdings, *, policy=DEFAULT_POLICY, current=()):
    return policy.propose(holdings, current)


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


def would_help(holdings, policy, pipelines, target):
    """Whether a source could take a target on and be faster than it is."""
    for source in holdings.complete_workers:
        cuts = [
            sum(1 << b for s in p.stages if s.worker != source for b in s.blocks)
            for p in pipelines
            if source in p.workers and not p.is_local
        ]
        more = [*cuts, holdings.masks[target]]
        before = source_rate(cuts, holdings.num_blocks, policy.merged_share)
        after = source_rate(more, holdings.num_blocks, policy.merged_share)
        if len(more) <= policy.max_pipelines_per_worker and after > before + 1e-9:
            return True
    return False


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


def test_one_arrived_block_already_serves():
    assert proposed({W0: range(4), W1: {0}}, 4) == ["w0[0-3]", "w1[0] → w0[1-3]"]


def test_one_block_is_enough_for_every_target_of_one_source():
    targets = {WorkerId(f"t{index}"): {0} for index in range(4)}
    found = proposed({W0: range(8), **targets}, 8)
    assert found == ["w0[0-7]", *(f"t{index}[0] → w0[1-7]" for index in range(4))]
    # All but the source's part is the same, so that it runs in one step.
    pipelines = propose(Holdings({W0: range(8), **targets}, 8))
    alone = throughput(pipelines[:1]).tokens_per_s
    assert throughput(pipelines).tokens_per_s > 1.9 * alone


def test_targets_are_cut_alike_though_one_holds_more():
    ready = {W0: range(4), W1: {0, 1}, W2: {0}, W3: {0}}
    assert sorted(proposed(ready, 4)[1:]) == [
        "w1[0] → w0[1-3]",
        "w2[0] → w0[1-3]",
        "w3[0] → w0[1-3]",
    ]


def test_targets_are_cut_anew_together():
    ready = {W0: range(4), W1: {0}, W2: {0}}
    current = propose(Holdings(ready, 4))
    ready[W1] = {0, 1}
    assert propose(Holdings(ready, 4), current=current) == current
    ready[W2] = {0, 1}
    found = propose(Holdings(ready, 4), current=current)
    assert [str(p) for p in found[1:]] == ["w1[0-1] → w0[2-3]", "w2[0-1] → w0[2-3]"]


def test_targets_that_hold_different_blocks_share_a_pipeline_with_a_source():
    ready = {W0: range(8), W1: {0, 1}, W2: {2, 3}}
    assert proposed(ready, 8)[1:] == ["w1[0-1] → w2[2-3] → w0[4-7]"]


def test_what_fits_into_local_replicas_opens_nothing_and_closes_nothing():
    holdings = Holdings({W0: range(4), W1: {0}}, 4)
    policy = ExecutionPolicy(sequences_per_replica=8)
    local = policy.propose(holdings, num_sequences=8)
    assert [str(p) for p in local] == ["w0[0-3]"]
    opened = policy.propose(holdings, num_sequences=9)
    assert len(opened) == 2
    assert policy.propose(holdings, opened, num_sequences=0) == opened


def num_calls(function):
    """How many calls a call leads to: what it costs, whatever the machine.

    But for those of the garbage collector, which may find what other tests left.
    """
    counted = 0

    def count(frame, event, arg):
        nonlocal counted
        counted += event in ("call", "c_call")

    before = sys.getprofile()
    gc.collect()
    gc.disable()
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(before)
        gc.enable()
    return counted


@pytest.mark.parametrize(
    "blocks_of",
    [
        lambda index: range(8) if index == 0 else range(3),
        lambda index: range(8) if index % 2 else range(3),
        lambda index: range(8) if index % 8 == 0 else range(index % 8),
        lambda index: range(8) if index % 9 == 0 else [index % 8, (index // 8) % 8],
        lambda index: range(8),
    ],
    ids=["one source", "half", "prefixes", "two blocks each", "all complete"],
)
def test_twice_the_workers_cost_about_twice_as_much(blocks_of):
    def costs(num_workers):
        ready = {WorkerId(f"w{i}"): blocks_of(i) for i in range(num_workers)}
        caches_are_empty()
        first = num_calls(lambda: propose(Holdings(ready, 8)))
        current = propose(Holdings(ready, 8))
        again = num_calls(lambda: propose(Holdings(ready, 8), current=current))
        return first, again

    fewer, more = costs(1000), costs(2000)
    assert more[0] <= 2.3 * fewer[0]
    assert more[1] <= 2.3 * fewer[1]


def caches_are_empty():
    for cached in (share_blocks, cut_alike, gain_of_another, recut_alike):
        cached.cache_clear()


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
    assert sorted(proposed(ready, 2, policy=policy)[2:]) == [
        "t0[0] → w0[1]",
        "t1[0] → w0[1]",
        "t2[0] → w1[1]",
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


def test_a_pair_that_has_just_become_whole_keeps_its_source_until_that_is_worth_it():
    """With 8 blocks each of the pair runs one more than before: not half as many."""
    ready = {W0: range(8), W1: (3, 4, 5, 6, 7), W2: (0, 1, 2, 6, 7)}
    running = pipeline(W2, W0, W0, W1, W1, W1, W2, W2)
    holdings = Holdings(ready, 8)
    pipelines = propose(holdings, current=(pipeline(*[W0] * 8), running))
    assert running in pipelines
    check(holdings, DEFAULT_POLICY, pipelines)


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
            step = 1 if num_blocks < 4 else 7
            found = every_holding(num_blocks, num_workers)
            for holdings in itertools.islice(found, 0, None, step):
                pipelines = propose(holdings, policy=policy)
                served = check(holdings, policy, pipelines)
                for target in set(holdings.partial_workers) - served:
                    assert not would_help(holdings, policy, pipelines, target)


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


@pytest.mark.parametrize("seed", [*range(150), 1009])
def test_pipelines_stay_sound_from_the_first_block_to_the_last(seed):
    rng = random.Random(seed)
    num_blocks, num_sources = rng.randint(2, 8), rng.randint(0, 2)
    growth = rng.choice([1, 1.25, 1.5, 3])
    policy = ExecutionPolicy(rng.randint(1, 4), recut_growth=growth)
    targets = [WorkerId(f"t{index}") for index in range(rng.randint(1, 5))]
    ready = {WorkerId(f"s{i}"): set(range(num_blocks)) for i in range(num_sources)}
    ready.update((target, set()) for target in targets)
    arrivals = [(t, block) for t in targets for block in range(num_blocks)]
    rng.shuffle(arrivals)
    if seed % 2:  # Each target gets its blocks in order.
        arrivals.sort(key=lambda arrival: arrival[1] + rng.random() * 2)
    current = ()
    for target, block in arrivals:
        ready[target].add(block)
        holdings = Holdings(ready, num_blocks)
        current = propose(holdings, policy=policy, current=current)
        check(holdings, policy, current)
        again = propose(holdings, policy=policy, current=current)
        assert sorted(map(str, again)) == sorted(map(str, current))
    assert all(p.is_local for p in current)
