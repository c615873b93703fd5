"""What helping brings a source, and that the best is found of all there is."""

import itertools
import random

import pytest

from jscale.plan.source_load import (
    cut_alike,
    deal_teams,
    gain_of_another,
    recut_alike,
    source_rate,
)


def test_the_rate_of_a_source_counted_out():
    assert source_rate([], 4, 0.5) == 1 / 4
    # A local step of 4 blocks and one of 3: two micro-batches.
    assert source_rate([0b0001], 4, 0.5) == 2 / 7
    # The second micro-batch adds half a step of 3.
    assert source_rate([0b0001, 0b0001], 4, 0.5) == 3 / 8.5
    # What lies on both sides of block 1 are two steps, each after a local one.
    assert source_rate([0b0010], 4, 0.5) == 3 / 11


@pytest.mark.parametrize("merged_share", [0, 0.25, 1])
def test_two_groups_are_never_better_than_the_better_one_alone(merged_share):
    for one, other in itertools.product(range(1, 15), repeat=2):
        for num_one, num_other in itertools.product((1, 2), repeat=2):
            if one != other:
                both = source_rate(
                    [one] * num_one + [other] * num_other, 4, merged_share
                )
                best = max(
                    source_rate([one] * num_one, 4, merged_share),
                    source_rate([other] * num_other, 4, merged_share),
                )
                assert both <= best + 1e-12


@pytest.mark.parametrize("merged_share", [0, 0.5, 1])
def test_another_team_that_is_cut_alike_never_costs_anything(merged_share):
    for mask in range(1, 15):
        for num_teams in range(6):
            assert gain_of_another(mask, num_teams, 4, merged_share) > 0


def test_as_many_are_taken_as_make_the_source_fastest():
    # Three that run one block beat one that runs two; were steps not merged, they
    # would not.
    masks = (0b0011, 0b0001, 0b0001)
    taken, rate = cut_alike(masks, 4, 0.0)
    assert (taken.num_teams, taken.mask, rate) == (3, 0b0001, 4 / 7)
    taken, rate = cut_alike(masks, 4, 1.0)
    assert (taken.num_teams, taken.mask, rate) == (1, 0b0011, 2 / 6)


def dumb_deal(masks, num_sources, num_teams_max, num_blocks, merged_share):
    """The best gain over every way to give each team a source or none."""
    best = 0.0
    for chosen in itertools.product(range(num_sources + 1), repeat=len(masks)):
        gain = 0.0
        for source in range(num_sources):
            mine = [m for m, c in zip(masks, chosen, strict=True) if c == source]
            common = (1 << num_blocks) - 1
            for mask in mine:
                common &= mask
            if not mine or not common or len(mine) > num_teams_max:
                gain -= 1e9 * (len(mine) > 0)
                continue
            gain += source_rate([common] * len(mine), num_blocks, merged_share)
            gain -= 1 / num_blocks
        best = max(best, gain)
    return best


@pytest.mark.parametrize("merged_share", [0.25, 1])
def test_teams_are_dealt_nearly_as_well_as_by_trying_everything(merged_share):
    rng = random.Random(3)
    shares = []
    for _ in range(60):
        num_sources, num_max = rng.randint(1, 3), rng.randint(1, 3)
        masks = [rng.randrange(1, 15) for _ in range(rng.randint(1, 4))]
        masks.sort(key=lambda mask: (-mask.bit_count(), mask))
        dealt = deal_teams(
            masks,
            num_sources,
            num_teams_max=num_max,
            num_blocks=4,
            merged_share=merged_share,
        )
        assert len(dealt) <= num_sources
        gain = 0.0
        for first, helped in dealt:
            assert 1 <= helped.num_teams <= num_max
            assert not any(
                helped.mask & ~mask for mask in masks[first : first + helped.num_teams]
            )
            gain += source_rate([helped.mask] * helped.num_teams, 4, merged_share)
            gain -= 1 / 4
        best = dumb_deal(masks, num_sources, num_max, 4, merged_share)
        assert gain <= best + 1e-12
        shares.append(gain / best)
    assert sum(shares) / len(shares) >= 0.97
    assert min(shares) >= 0.5


def recut(cuts, held, growth=1.5):
    return recut_alike(
        tuple(cuts),
        tuple(held),
        num_blocks=4,
        merged_share=0.25,
        growth=growth,
    )


def test_teams_are_cut_anew_together_or_not_at_all():
    assert recut([1, 1, 1], [0b11, 0b11, 0b11]) == (0b11, 0b11, 0b11)
    # Two groups would be slower than one, though two teams could run more.
    assert recut([1, 1, 1], [0b11, 0b11, 0b01]) == (1, 1, 1)
    assert recut([0b11], [0b111]) == (0b111,)
    assert recut([0b11], [0b111], growth=1.6) == (0b11,)


def test_less_in_one_piece_beats_more_between_which_the_source_has_its_turns():
    # Blocks 1 and 3: the source would have two stages, each after a local step.
    taken, _ = cut_alike((0b1010, 0b1010, 0b1010), 4, 0.0)
    assert (taken.num_teams, taken.mask) == (3, 0b1000)
    taken, _ = cut_alike((0b1010,), 4, 1.0)
    assert taken.mask == 0b1010


def test_who_could_do_without_a_source_stays_as_it_is_here():
    assert recut([0b0111], [0b1111]) == (0b0111,)
    assert recut([0b0001, 0b0001], [0b1111, 0b0011]) == (0b0011, 0b0011)
