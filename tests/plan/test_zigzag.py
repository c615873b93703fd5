"""ZigZag: the paper's claims, and against the best of all orders on tiny cases."""

import functools
import itertools
import random
import statistics

import pytest

from jscale.core.errors import ConfigError
from jscale.plan.prefill_timeline import Prompt, prefill_timeline
from jscale.plan.zigzag import (
    SourceAlonePolicy,
    StaticHalvesPolicy,
    Turn,
    ZigZagPolicy,
)

POLICIES = (ZigZagPolicy(), StaticHalvesPolicy(), SourceAlonePolicy())


def burst(num_prompts, block_ns=1):
    return [Prompt(0, block_ns)] * num_prompts


def makespan(policy, prompts, loaded_ns, **settings):
    return prefill_timeline(policy, prompts, loaded_ns, **settings).makespan_ns


def best_makespan(num_prompts, loaded_ns):
    """By every order in which two workers can run blocks, one unit each at a time."""
    num_blocks = len(loaded_ns)

    @functools.cache
    def best(now, done):
        if all(num == num_blocks for num in done):
            return now
        num_loaded = sum(loaded <= now for loaded in loaded_ns)
        unfinished = [i for i, num in enumerate(done) if num < num_blocks]
        able = [i for i in unfinished if done[i] < num_loaded]
        found = []
        for source, target in itertools.product(unfinished, [*able, None]):
            if source != target:
                after = list(done)
                for index in (source, target):
                    if index is not None:
                        after[index] += 1
                found.append(best(now + 1, tuple(sorted(after))))
        return min(found)

    return best(0, (0,) * num_prompts)


def test_the_target_runs_one_block_of_the_first_prompt_that_can_go_on():
    zigzag = ZigZagPolicy()
    settings = {"num_loaded": 2, "num_blocks": 4}
    assert zigzag.target_turn([2, 1, 0], **settings) == Turn(1, 1)
    assert zigzag.target_turn([0, 1], **settings) == Turn(0, 1)
    assert zigzag.target_turn([2, 3], **settings) is None
    assert zigzag.target_turn([], **settings) is None


def test_the_source_finishes_the_earliest_prompt():
    settings = {"num_loaded": 2, "num_blocks": 4}
    assert ZigZagPolicy().source_turn([1, 0], **settings) == Turn(0, 3)
    assert ZigZagPolicy().source_turn([], **settings) is None


def test_two_prompts_end_after_three_block_times_with_one_of_two_blocks_loaded():
    found = prefill_timeline(ZigZagPolicy(), burst(2), [0, 99])
    assert found.ended_ns == (2, 3)
    assert [(r.is_target, r.prompt, r.first_block, r.end_ns) for r in found.runs] == [
        (False, 0, 0, 2),
        (True, 1, 0, 1),
        (False, 1, 1, 3),
    ]


def test_paper_throughput_doubles_once_half_the_layers_are_loaded():
    # BlitzScale, section 5.2: each runs half of every prompt.
    never = 10**9
    loaded = [0] * 4 + [never] * 4
    assert makespan(SourceAlonePolicy(), burst(64), loaded) == 64 * 8
    assert makespan(ZigZagPolicy(), burst(64), loaded) <= 1.03 * 64 * 4


def test_paper_the_target_comes_back_to_a_prompt_when_its_next_layer_is_there():
    # Best effort cuts a prompt where the target stands when it begins: too early.
    loaded = [5 * block for block in range(8)]
    zigzag = makespan(ZigZagPolicy(), burst(8), loaded)
    static = makespan(StaticHalvesPolicy(), burst(8), loaded)
    alone = makespan(SourceAlonePolicy(), burst(8), loaded)
    assert zigzag < static < alone


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("seed", range(30))
def test_every_block_of_every_prompt_runs_once_in_order_where_it_is(policy, seed):
    rng = random.Random(seed)
    num_blocks = rng.randint(1, 8)
    loaded = sorted(rng.randrange(60) for _ in range(num_blocks))
    arrivals = sorted(rng.randrange(40) for _ in range(rng.randint(1, 8)))
    prompts = [Prompt(each, rng.randint(1, 5)) for each in arrivals]
    found = prefill_timeline(policy, prompts, loaded, hop_ns=rng.randrange(3))
    for number, prompt in enumerate(prompts):
        runs = sorted(
            (r for r in found.runs if r.prompt == number), key=lambda r: r.first_block
        )
        next_block, free_ns = 0, prompt.arrival_ns
        for run in runs:
            assert run.first_block == next_block
            assert run.start_ns >= free_ns
            next_block, free_ns = next_block + run.num_blocks, run.end_ns
            if run.is_target:
                assert run.start_ns >= loaded[next_block - 1]
        assert next_block == num_blocks
        assert found.ended_ns[number] == free_ns
    for is_target in (False, True):
        runs = [r for r in found.runs if r.is_target == is_target]
        for before, after in itertools.pairwise(runs):
            assert before.end_ns <= after.start_ns


def every_loading(num_blocks, steps):
    for pauses in itertools.product(steps, repeat=num_blocks):
        yield list(itertools.accumulate(pauses))


def test_zigzag_is_near_the_best_order_and_never_worse_than_the_source_alone():
    of_best, of_halves = [], []
    for num_blocks in (2, 3, 4):
        for loaded in every_loading(num_blocks, (0, 1, 3)):
            for num_prompts in (1, 2, 3, 4):
                prompts = burst(num_prompts)
                zigzag = makespan(ZigZagPolicy(), prompts, loaded)
                best = best_makespan(num_prompts, loaded)
                assert best <= zigzag <= makespan(SourceAlonePolicy(), prompts, loaded)
                of_best.append(best / zigzag)
                of_halves.append(
                    zigzag / makespan(StaticHalvesPolicy(), prompts, loaded)
                )
    assert statistics.mean(of_best) >= 0.95
    assert min(of_best) >= 0.7
    assert statistics.mean(of_halves) <= 0.95


@pytest.mark.parametrize(
    ("prompts", "loaded"),
    [
        ([Prompt(1, 1), Prompt(0, 1)], [0]),
        ([Prompt(0, 1)], [3, 2]),
        ([Prompt(0, 1)], []),
    ],
)
def test_times_that_fall_are_refused(prompts, loaded):
    with pytest.raises(ConfigError):
        prefill_timeline(ZigZagPolicy(), prompts, loaded)


def test_a_prompt_that_takes_no_time_is_refused():
    with pytest.raises(ConfigError):
        Prompt(0, 0)
