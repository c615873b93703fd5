"""Which targets go together, and which of them runs which block.

Blocks that somebody holds are given as bits, 0b101 for blocks 0 and 2, and targets with
the same bits are told apart only by their order: thousands of targets that are sent the
same blocks cost hardly more than one.
"""

import functools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from jscale.core.ids import WorkerId

HOLDERS_SEEN_MAX = 64
"""How many different holdings are compared for each place in a team."""


def covers(
    masks: Mapping[WorkerId, int],
    targets: Sequence[WorkerId],
    num_blocks: int,
    num_targets_max: int,
) -> Iterator[tuple[WorkerId, ...]]:
    """Disjoint sets of targets that hold every block together, each target needed.

    From w1 with blocks 0 and 1, w2 with 1, and w3 with 2 of 3, it is (w1, w3). Greedy,
    so it may miss a set that exists. Takes time in proportion to the targets, and to
    the different holdings among them.
    """
    whole = (1 << num_blocks) - 1
    return _teams(masks, targets, num_blocks, num_targets_max, wanted=whole)


def teams(
    masks: Mapping[WorkerId, int],
    targets: Sequence[WorkerId],
    num_blocks: int,
    num_targets_max: int,
) -> Iterator[tuple[WorkerId, ...]]:
    """All targets, in disjoint sets that hold much together, each target needed."""
    return _teams(masks, targets, num_blocks, num_targets_max, wanted=0)


@functools.lru_cache(maxsize=4096)
def share_blocks(masks: tuple[int, ...], num_blocks: int) -> tuple[int | None, ...]:
    """Who runs each block: index of a target, None where no target holds it.

    The busiest target runs as few blocks as a sweep can manage: with 4 blocks, of which
    target 0 holds 0 to 2 and target 1 holds 1 to 3, it is 0, 0, 1, 1.
    """
    for limit in range(1, num_blocks + 1):
        runners = _sweep(masks, num_blocks, limit)
        if runners is not None:
            return runners
    raise AssertionError("whoever holds blocks can run all that it holds")


def _teams(
    masks: Mapping[WorkerId, int],
    targets: Sequence[WorkerId],
    num_blocks: int,
    num_targets_max: int,
    *,
    wanted: int,
) -> Iterator[tuple[WorkerId, ...]]:
    """Teams that hold at least what is wanted, until there is none any more.

    A team that was found is found again as long as there are such targets: only when
    one of its kinds of holdings is used up, something else must be looked for.
    """
    pools: dict[int, deque[WorkerId]] = {}
    for target in targets:
        if masks[target]:
            pools.setdefault(masks[target], deque()).append(target)
    # Sorting keeps the given order among equals.
    largest_first = sorted(pools, key=lambda mask: -mask.bit_count())
    holders = [
        deque(mask for mask in largest_first if mask >> block & 1)
        for block in range(num_blocks)
    ]
    scarcest_first = sorted(
        range(num_blocks),
        key=lambda block: sum(len(pools[mask]) for mask in holders[block]),
    )
    while pools:
        team = _compose(pools, holders, scarcest_first, num_targets_max)
        union = functools.reduce(int.__or__, team)
        if union & wanted != wanted:
            return
        needed = _needed(team)
        for _ in range(min(len(pools[mask]) for mask in needed)):
            yield tuple(pools[mask].popleft() for mask in needed)
        for mask in needed:
            if not pools[mask]:
                del pools[mask]


def _compose(
    pools: Mapping[int, deque[WorkerId]],
    holders: Sequence[deque[int]],
    scarcest_first: Sequence[int],
    num_targets_max: int,
) -> list[int]:
    """Holdings that go together: for each block, of its holders whoever adds most.

    The block that fewest hold comes first, as it has least choice.
    """
    team: list[int] = []
    union = 0
    for block in scarcest_first:
        if union >> block & 1 or len(team) == num_targets_max:
            continue
        able = _first_living(holders[block], pools)
        if able:
            best = max(able, key=lambda mask: (mask & ~union).bit_count())
            team.append(best)
            union |= best
    return team


def _first_living(
    holders: deque[int], pools: Mapping[int, deque[WorkerId]]
) -> list[int]:
    """The first holdings that somebody still has; used ones among them are dropped."""
    living: list[int] = []
    while holders and len(living) < HOLDERS_SEEN_MAX:
        mask = holders.popleft()
        if mask in pools:
            living.append(mask)
    holders.extendleft(reversed(living))
    return living


def _needed(team: Sequence[int]) -> list[int]:
    """The holdings of a team without those that the others can do without."""
    needed = list(team)
    for mask in team:
        others = functools.reduce(int.__or__, (m for m in needed if m != mask), 0)
        if mask & ~others == 0:
            needed.remove(mask)
    return needed


def _sweep(
    masks: Sequence[int], num_blocks: int, limit: int
) -> tuple[int | None, ...] | None:
    """Who runs each block if no target may run more than `limit`; None if none can.

    Of the targets that hold the next block, the one that holds fewest of those still to
    come goes on as long as it can: the others will have other chances.
    """
    room = [limit] * len(masks)
    runners: list[int | None] = []
    while len(runners) < num_blocks:
        block = len(runners)
        holding = [index for index, mask in enumerate(masks) if mask >> block & 1]
        if not holding:
            runners.append(None)
            continue
        able = [index for index in holding if room[index] > 0]
        if not able:
            return None
        chosen = min(able, key=lambda index: (masks[index] >> block).bit_count())
        while room[chosen] > 0 and masks[chosen] >> len(runners) & 1:
            runners.append(chosen)
            room[chosen] -= 1
    return tuple(runners)
