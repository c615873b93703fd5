"""What it costs a source to run blocks for others, and what that brings.

A *team* is one target, or several that hold different blocks; its pipeline is completed
by a source. All that a source does is measured in block times, the time that one
micro-batch takes for one block.

A source's device gives every other step to its own local replica, and what its
pipelines have waiting for the same blocks runs in one step, where each further
micro-batch adds the share m of a step alone. If k teams run the same u of b blocks, a
round of the source is one local step and one step for all of them: it takes
b + (b − u)(1 + (k − 1)m) block times and brings 1 + k micro-batches. With several
groups of teams, each with a u and a k of its own, it is the sum of their rounds, and
the rate

    Σ (1 + kᵢ) / Σ (b + (b − uᵢ)(1 + (kᵢ − 1)m))

lies between the best and the worst of the single rates. Hence a source is best off with
one group: its teams are cut alike, though some hold more, and whoever holds too little
to be cut like that waits.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Sequence


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
        num_source_blocks = num_blocks - mask.bit_count()
        num_batches += 1 + num_teams
        block_times += num_blocks
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

    The first team is always among them: give those that hold most first. What is cut
    is what all that are taken hold.
    """
    assert masks[0], masks
    best, best_rate, common = Helped(1, masks[0]), 0.0, masks[0]
    for num_teams, mask in enumerate(masks, start=1):
        common &= mask
        if not common:
            break
        rate = source_rate([common] * num_teams, num_blocks, merged_share)
        if rate > best_rate:
            best, best_rate = Helped(num_teams, common), rate
    return best, best_rate


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
    side by side. As many to a source as makes all of them together fastest.
    """
    best: list[tuple[int, Helped]] = []
    best_rate = 0.0
    for size in range(1, num_teams_max + 1):
        dealt = []
        num_used = min(num_sources, -(-len(masks) // size))
        rate = (num_sources - num_used) / num_blocks
        for number in range(num_used):
            first = number * size
            helped, helped_rate = cut_alike(
                tuple(masks[first : first + size]), num_blocks, merged_share
            )
            dealt.append((first, helped))
            rate += helped_rate
        if rate > best_rate:
            best, best_rate = dealt, rate
    return best


def recut_alike(
    cuts: Sequence[int],
    held: Sequence[int],
    *,
    num_blocks: int,
    merged_share: float,
    growth: float,
) -> Sequence[int]:
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
    common = (1 << num_blocks) - 1
    for number, team in enumerate(most_first, start=1):
        common &= held[team]
        cut_anew = [each for each in most_first[:number] if cuts[each] != common]
        if any(
            common.bit_count() < growth * cuts[each].bit_count() for each in cut_anew
        ):
            continue
        proposed = list(cuts)
        for each in cut_anew:
            proposed[each] = common
        rate = source_rate(proposed, num_blocks, merged_share)
        if rate > best_rate:
            best, best_rate = proposed, rate
    return best
