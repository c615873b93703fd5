"""Which targets go together, and which of them runs which block.

Blocks that somebody holds are given as bits, 0b101 for blocks 0 and 2, and targets with
the same bits are told apart only by their order: thousands of targets that are sent the
same blocks cost hardly more than one.
"""

import functools
import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from jscale.core.ids import WorkerId

ALTERNATIVES_MAX = 32
"""How many different holdings are compared for each place in a team."""

MUCH = 1.2
"""How many times as much as it could be the busiest target's share may be."""


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
    rest = list(targets)
    while rest:
        covering: set[WorkerId] = set()
        for team in _teams(masks, rest, num_blocks, num_targets_max, wanted=whole):
            covering.update(team)
            yield team
        if not covering:
            return
        rest = [worker for worker in rest if worker not in covering]


def teams(
    masks: Mapping[WorkerId, int],
    targets: Sequence[WorkerId],
    num_blocks: int,
    num_targets_max: int,
) -> Iterator[tuple[WorkerId, ...]]:
    """All targets, in disjoint sets that hold much together, each target needed."""
    return _teams(masks, targets, num_blocks, num_targets_max, wanted=0)


def reinforced(
    masks: Mapping[WorkerId, int],
    found: Iterable[tuple[WorkerId, ...]],
    spares: Sequence[WorkerId],
    num_blocks: int,
    num_targets_max: int,
    gain_elsewhere: Callable[[int], float],
) -> Iterator[tuple[WorkerId, ...]]:
    """The same covers, with targets that nobody needs where they relieve the busiest.

    A cover whose busiest target runs n blocks makes 1 / n steps in a block time. To w1
    with blocks 0 and 1, and w2 with 2, comes w3 with 1: one block each.

    Args:
      masks: what each holds.
      found: covers, as `covers` gives them.
      spares: who is in none of them.
      num_blocks: how many the model has.
      num_targets_max: in a cover.
      gain_elsewhere: what a target with these blocks would add in block times
        otherwise: it must add more here.
    """
    pools: dict[int, deque[WorkerId]] = {}
    for spare in spares:
        pools.setdefault(masks[spare], deque()).append(spare)
    looked_at: set[tuple[int, ...]] = set()
    for cover in found:
        team = list(cover)
        held = tuple(masks[worker] for worker in team)
        while pools and len(team) < num_targets_max:
            looked_at.add(held)
            if len(looked_at) > ALTERNATIVES_MAX:
                break
            now = 1 / num_blocks_of_busiest(held, num_blocks)
            gains = {
                mask: 1 / num_blocks_of_busiest((*held, mask), num_blocks)
                - now
                - gain_elsewhere(mask)
                for mask in itertools.islice(pools, ALTERNATIVES_MAX)
            }
            best = max(gains, key=lambda mask: gains[mask])
            if gains[best] <= 0:
                break
            team.append(pools[best].popleft())
            held = (*held, best)
            if not pools[best]:
                del pools[best]
        if len(looked_at) <= ALTERNATIVES_MAX:
            _replace_by_lesser(team, held, pools, num_blocks)
        yield tuple(team)


def _replace_by_lesser(
    team: list[WorkerId],
    held: tuple[int, ...],
    pools: dict[int, deque[WorkerId]],
    num_blocks: int,
) -> None:
    """Puts spares that hold less in the places of those who need not run so much.

    The cover stays as fast, and who holds more is worth more elsewhere.
    """
    limit = num_blocks_of_busiest(held, num_blocks)
    for place, mask in enumerate(held):
        for lesser in sorted(pools, key=int.bit_count)[:ALTERNATIVES_MAX]:
            others = (*held[:place], lesser, *held[place + 1 :])
            if (
                lesser.bit_count() < mask.bit_count()
                and functools.reduce(int.__or__, others) == (1 << num_blocks) - 1
                and num_blocks_of_busiest(others, num_blocks) == limit
            ):
                pools.setdefault(mask, deque()).append(team[place])
                team[place] = pools[lesser].popleft()
                if not pools[lesser]:
                    del pools[lesser]
                held = others
                break


def num_blocks_of_busiest(masks: tuple[int, ...], num_blocks: int) -> int:
    """How many blocks the target runs that runs most, as `share_blocks` has it."""
    counts = Counter(share_blocks(masks, num_blocks))
    return max(count for index, count in counts.items() if index is not None)


@functools.lru_cache(maxsize=8192)
def share_blocks(masks: tuple[int, ...], num_blocks: int) -> tuple[int | None, ...]:
    """Who runs each block: index of a target, None where no target holds it.

    The busiest target runs as few blocks as a sweep can manage, which makes few stages;
    or as few as can be, if that is much less and no source holds things up. With 4
    blocks, of which target 0 holds 0 to 2 and target 1 holds 1 to 3, it is 0, 0, 1, 1.
    """
    num_held = functools.reduce(int.__or__, masks).bit_count()
    least = -(-num_held // len(masks))
    for limit in range(least, num_blocks + 1):
        swept = _sweep(masks, num_blocks, limit)
        if swept is not None:
            break
    assert swept is not None, "whoever holds blocks can run all that it holds"
    if num_held == num_blocks and limit > least * MUCH:
        for less in range(least, limit):
            matched = _match(masks, num_blocks, less)
            if matched is not None:
                return matched
    return swept


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
    one of its kinds of holdings is used up, something else must be looked for. What
    leads to too little is left out from there on.
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
            if len(team) < num_targets_max:
                return
            del pools[team[0]]
            continue
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

    The block that fewest hold comes first, as it has least choice. Of those that add
    the same the one that holds least, as the others are worth more elsewhere.
    """
    team: list[int] = []
    union = 0
    for block in scarcest_first:
        if union >> block & 1 or len(team) == num_targets_max:
            continue
        able = _first_living(holders[block], pools)
        if able:
            best = max(able, key=lambda m: ((m & ~union).bit_count(), -m.bit_count()))
            team.append(best)
            union |= best
    return team


def _first_living(
    holders: deque[int], pools: Mapping[int, deque[WorkerId]]
) -> list[int]:
    """The first holdings that somebody still has; used ones among them are dropped."""
    living: list[int] = []
    while holders and len(living) < ALTERNATIVES_MAX:
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


def _match(
    masks: Sequence[int], num_blocks: int, limit: int
) -> tuple[int | None, ...] | None:
    """The same by augmenting paths, which find a way wherever there is one.

    A block goes to a target that has room for it, or takes the place of another block
    that finds room elsewhere.
    """
    runs: list[list[int]] = [[] for _ in masks]

    def place(block: int, tried: set[int]) -> bool:
        for target, mask in enumerate(masks):
            if mask >> block & 1 and target not in tried:
                tried.add(target)
                for index in range(limit):
                    if index == len(runs[target]):
                        runs[target].append(block)
                        return True
                    if place(runs[target][index], tried):
                        runs[target][index] = block
                        return True
        return False

    held = functools.reduce(int.__or__, masks)
    if not all(place(b, set()) for b in range(num_blocks) if held >> b & 1):
        return None
    runner_of = {block: target for target, found in enumerate(runs) for block in found}
    return tuple(runner_of.get(block) for block in range(num_blocks))
