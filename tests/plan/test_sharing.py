"""Teams and shares: by example, and against every way that there is."""

import itertools
import random

import pytest

from jscale.core.ids import WorkerId
from jscale.plan.sharing import MUCH, covers, reinforced, share_blocks, teams


def named(masks):
    return {WorkerId(f"t{index}"): mask for index, mask in enumerate(masks)}


def union_of(masks, team):
    union = 0
    for worker in team:
        union |= masks[worker]
    return union


def least_of_busiest(masks, num_blocks):
    """By trying every target for every block that anybody holds."""
    choices = [
        [index for index, mask in enumerate(masks) if mask >> block & 1] or [None]
        for block in range(num_blocks)
    ]
    return min(
        max(runners.count(index) for index in range(len(masks)))
        for runners in itertools.product(*choices)
    )


def test_one_cover_for_each_time_that_the_model_is_held_together():
    masks = named([0b0011, 0b0011, 0b1100, 0b1100, 0b1000])
    found = list(covers(masks, list(masks), 4, 8))
    assert found == [("t0", "t2"), ("t1", "t3")]


def test_the_scarcest_block_is_asked_for_first():
    # Block 3 is only held by t2: whoever takes t0 and t1 first still needs it.
    masks = named([0b0111, 0b0011, 0b1100])
    assert list(covers(masks, list(masks), 4, 8)) == [("t2", "t1")]


def test_a_cover_has_no_more_targets_than_it_may():
    masks = named([0b0001, 0b0010, 0b0100, 0b1000, 0b0111])
    assert list(covers(masks, list(masks), 4, 2)) == [("t3", "t4")]
    assert list(covers(masks, list(masks)[:4], 4, 3)) == []


@pytest.mark.parametrize("num_targets", [1, 2, 3, 4])
def test_covers_are_disjoint_whole_and_without_idle_members(num_targets):
    for held in itertools.product(range(8), repeat=num_targets):
        masks = named(held)
        found = list(covers(masks, list(masks), 3, 8))
        members = [worker for team in found for worker in team]
        assert len(members) == len(set(members))
        for team in found:
            assert union_of(masks, team) == 0b111
            for worker in team:
                others = [each for each in team if each != worker]
                assert union_of(masks, others) != 0b111, "one is not needed"
        left = [worker for worker in masks if worker not in members]
        assert union_of(masks, left) != 0b111, "those that are left hold the model"


def test_teams_are_all_targets_that_hold_anything_once():
    rng = random.Random(1)
    for _ in range(50):
        masks = named([rng.randrange(16) for _ in range(rng.randrange(1, 12))])
        found = [worker for team in teams(masks, list(masks), 4, 3) for worker in team]
        assert sorted(found) == sorted(w for w, mask in masks.items() if mask)


def test_who_holds_the_same_is_told_apart_only_by_order():
    masks = named([0b0011, 0b1100] * 500)
    found = list(covers(masks, list(masks), 4, 8))
    assert found == [(f"t{2 * i}", f"t{2 * i + 1}") for i in range(500)]


@pytest.mark.parametrize("num_targets", [1, 2, 3])
def test_the_busiest_runs_hardly_more_than_it_must(num_targets):
    for num_blocks in (1, 2, 3, 4):
        for masks in itertools.product(range(1, 2**num_blocks), repeat=num_targets):
            runners = share_blocks(masks, num_blocks)
            for block, runner in enumerate(runners):
                if runner is None:
                    assert not any(mask >> block & 1 for mask in masks)
                else:
                    assert masks[runner] >> block & 1
            busiest = max(runners.count(index) for index in range(num_targets))
            if None not in runners:
                assert busiest <= least_of_busiest(masks, num_blocks) * MUCH


def test_shares_are_neighbours_where_that_costs_nothing():
    assert share_blocks((0b0111, 0b1110), 4) == (0, 0, 1, 1)
    assert share_blocks((0b0101, 0b1010), 4) == (0, 1, 0, 1)
    assert share_blocks((0b0011,), 4) == (0, 0, None, None)


@pytest.mark.parametrize(
    ("held", "num_targets_max", "gain_elsewhere", "joins"),
    [
        ((0b0011, 0b0100, 0b0010), 8, 0.4, True),
        ((0b0011, 0b0100, 0b0010), 8, 0.6, False),
        ((0b0011, 0b0100, 0b0010), 2, 0.0, False),
        ((0b0011, 0b0100, 0b0100), 8, 0.0, False),
    ],
    ids=["0.5 → 1", "worth more elsewhere", "no room", "not the busiest's blocks"],
)
def test_a_spare_relieves_the_busiest_where_that_is_the_best_it_can_do(
    held, num_targets_max, gain_elsewhere, joins
):
    masks = named(held)
    found = reinforced(
        masks, [("t0", "t1")], ["t2"], 3, num_targets_max, lambda mask: gain_elsewhere
    )
    assert list(found) == [("t0", "t1", "t2") if joins else ("t0", "t1")]
