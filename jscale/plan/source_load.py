"""What it costs a source to run blocks for others, and what that brings.

A *team* is one target, or several that hold different blocks; its pipeline is completed
by a source. All that a source does is measured in block times, the time that one
micro-batch takes for one block.

A source's device gives every other step to its own local replica, and what its
pipelines have waiting for the same blocks runs in one step, where each further
micro-batch adds the share m of a step alone. Let k teams run the same u of b blocks, so
that the source runs the b − u others in f runs of neighbours, one stage each. A round
of the source is then f local steps and f steps for all teams: it takes
f b + (b − u)(1 + (k − 1)m) block times and brings f + k micro-batches. With several
groups of teams, each with its own u, f and k, it is the sum of their rounds, and the
rate

    Σ (fᵢ + kᵢ) / Σ (fᵢ b + (b − uᵢ)(1 + (kᵢ − 1)m))

lies between the best and the worst of the single rates. Hence a source is best off with
one group: its teams are cut alike, though some hold more, and whoever holds too little
to be cut like that waits. `pipeline_cost` has the whole model, where other workers may
be the ones that hold a pipeline up.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Sequence

PRICES = (0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""What `deal_teams` tries as a source's price, as shares of the most it could gain."""


@dataclasses.dataclass(frozen=True)
class Helped:
    """Teams of one source that are cut alike: the first so many, with these blocks."""

    num_teams: int
    mask: int


def source_rate(masks: Iterable[int], num_blocks: int, merged_share: float) -> float:
    """Micro-batches in a block time of a source whose teams run the blocks of `masks`.

    Its own are among them: without teams it is 1 / b.
    """
    num_batches, block_times = 0, 0.0
    for mask, num_teams in Counter(masks).items():
        num_runs = _num_runs(~mask & (1 << num_blocks) - 1)
        num_source_blocks = num_blocks - mask.bit_count()
        num_batches += num_runs + num_teams
        block_times += num_runs * num_blocks
        block_times += num_source_blocks * (1 + (num_teams - 1) * merged_share)
    return num_batches / block_times if num_batches else 1 / num_blocks


@functools.lru_cache(maxsize=4096)
def gain_of_another(
    mask: int, num_teams: int, num_blocks: int, merged_share: float
) -> float:
    """What one more team adds to the rate of a source that helps `num_teams` alike."""
    after = source_rate([mask] * (num_teams + 1), num_blocks, merged_share)
    return after - source_rate([mask] * num_teams, num_blocks, merged_share)


@functools.lru_cache(maxsize=4096)
def cut_alike(
    masks: tuple[int, ...], num_blocks: int, merged_share: float
) -> tuple[Helped, float]:
    """How many of these teams a source best takes, and its rate then.

    The first team is always among them: give those that hold most first. They run what
    all that are taken hold, or the part of it that makes the source fastest.
    """
    assert masks[0], masks
    best, best_rate, common = Helped(1, masks[0]), 0.0, masks[0]
    for num_teams, mask in enumerate(masks, start=1):
        common &= mask
        if not common:
            break
        cut = _without_costly_runs(common, num_teams, num_blocks, merged_share)
        rate = source_rate([cut] * num_teams, num_blocks, merged_share)
        if rate > best_rate:
            best, best_rate = Helped(num_teams, cut), rate
    return best, best_rate


def _without_costly_runs(
    mask: int, num_teams: int, num_blocks: int, merged_share: float
) -> int:
    """The same blocks, but for runs between which the source had a stage of its own.

    Each such stage waits for a local step: it may be better to run less in one piece.
    """
    best = mask
    best_rate = source_rate([mask] * num_teams, num_blocks, merged_share)
    is_better = True
    while is_better:
        is_better = False
        for run in _runs(best):
            rate = source_rate([best ^ run] * num_teams, num_blocks, merged_share)
            if best != run and rate > best_rate:
                best, best_rate, is_better = best ^ run, rate, True
                break
    return best


def _runs(mask: int) -> list[int]:
    """Runs of neighbouring blocks, from the first on: 0b11 and 0b1000 of 0b1011."""
    runs = []
    while mask:
        lowest = mask & -mask
        run = mask & ~(mask + lowest)
        runs.append(run)
        mask ^= run
    return runs


def deal_teams(
    masks: Sequence[int],
    num_sources: int,
    *,
    num_teams_max: int,
    num_blocks: int,
    merged_share: float,
) -> list[tuple[int, Helped]]:
    """Which teams idle sources take: for each source in turn, its first team and cut.

    Neighbours go to the same source: give those that hold most first, and equal ones
    side by side. As many to a source as makes all of them together fastest. Where there
    are too few sources for that, each is given a price that teams must be worth, and
    the best of a few prices is taken.
    """
    best: list[tuple[int, Helped]] = []
    best_gain = 0.0
    price_max = num_teams_max * gain_of_another(masks[0], 0, num_blocks, merged_share)
    for price in PRICES:
        dealt = _deal_at(
            masks,
            price * price_max,
            num_teams_max=num_teams_max,
            num_blocks=num_blocks,
            merged_share=merged_share,
        )
        # Sorting keeps the given order among equals.
        most_first = sorted(dealt, key=lambda each: -each[2])[:num_sources]
        gain = sum(each[2] for each in most_first)
        if gain > best_gain:
            best = [(first, helped) for first, helped, _ in most_first]
            best_gain = gain
        if len(dealt) <= num_sources:
            break
    return best


def _deal_at(
    masks: Sequence[int],
    price: float,
    *,
    num_teams_max: int,
    num_blocks: int,
    merged_share: float,
) -> list[tuple[int, Helped, float]]:
    """Runs of teams for a source each, with what it gains, if a source has a price.

    The best of all divisions into runs, or none for some teams, by dynamic programming
    from the last team to the first.
    """
    gains = [0.0] * (len(masks) + 1)
    choices: list[tuple[int, Helped, float] | None] = [None] * len(masks)
    for first in reversed(range(len(masks))):
        gains[first] = gains[first + 1]
        for size in range(1, min(num_teams_max, len(masks) - first) + 1):
            run = tuple(masks[first : first + size])
            helped, rate = cut_alike(run, num_blocks, merged_share)
            gain = rate - 1 / num_blocks
            total = gain - price + gains[first + helped.num_teams]
            if helped.num_teams == size and total > gains[first]:
                gains[first] = total
                choices[first] = (first, helped, gain)
    dealt = []
    first = 0
    while first < len(masks):
        choice = choices[first]
        if choice is None:
            first += 1
        else:
            dealt.append(choice)
            first += choice[1].num_teams
    return dealt


@functools.lru_cache(maxsize=4096)
def recut_alike(
    cuts: tuple[int, ...],
    held: tuple[int, ...],
    *,
    num_blocks: int,
    merged_share: float,
    growth: float,
) -> tuple[int, ...]:
    """The blocks that each team of a source should run now.

    Those that hold most are cut anew, and alike, as many of them as makes the source
    fastest; nobody whose share would not grow `growth`-fold, and nothing that would
    make the source slower because the rest cannot follow yet.

    Args:
      cuts: the blocks that each team runs now.
      held: the blocks that each team holds; more than it runs.
      num_blocks: how many the model has.
      merged_share: what a further micro-batch adds to a step.
      growth: how many times as much a team must run after it was cut anew.
    """
    most_first = sorted(range(len(cuts)), key=lambda team: -held[team].bit_count())
    best = cuts
    best_rate = source_rate(cuts, num_blocks, merged_share)
    whole = common = (1 << num_blocks) - 1
    for number, team in enumerate(most_first, start=1):
        common &= held[team]
        if not common:
            break
        if common == whole:  # Teams that could do without: not worth a re-cut yet.
            continue
        new = _without_costly_runs(common, number, num_blocks, merged_share)
        cut_anew = [each for each in most_first[:number] if cuts[each] != new]
        if any(new.bit_count() < growth * cuts[each].bit_count() for each in cut_anew):
            continue
        proposed = tuple(
            new if each in cut_anew else cut for each, cut in enumerate(cuts)
        )
        rate = source_rate(proposed, num_blocks, merged_share)
        if rate > best_rate:
            best, best_rate = proposed, rate
    return best


def _num_runs(mask: int) -> int:
    """How many runs of neighbouring blocks: 2 for 0b1011."""
    return (mask & ~(mask << 1)).bit_count()
