"""Which worker runs which block, where several could."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from jscale.core.ids import WorkerId


def covers(
    ready: Mapping[WorkerId, Collection[int]],
    targets: Sequence[WorkerId],
    num_blocks: int,
    num_targets_max: int,
) -> Iterator[tuple[WorkerId, ...]]:
    """Disjoint sets of targets that hold every block together, each target needed.

    Greedy: whoever adds most blocks comes next, so it may miss a set that exists.
    """
    free = list(targets)
    while True:
        cover: list[WorkerId] = []
        missing = set(range(num_blocks))
        while missing:
            best = max(
                free, key=lambda w: len(missing.intersection(ready[w])), default=None
            )
            if best is None or missing.isdisjoint(ready[best]):
                return
            if len(cover) == num_targets_max:
                return
            missing.difference_update(ready[best])
            cover.append(best)
            free.remove(best)
        needed = _needed(ready, cover)
        free += [worker for worker in cover if worker not in needed]
        yield needed


def share_blocks(
    ready: Mapping[WorkerId, Collection[int]],
    targets: Sequence[WorkerId],
    source: WorkerId | None,
    num_blocks: int,
) -> list[WorkerId]:
    """Who runs each block: targets what they hold, the source what none of them does.

    The busiest target runs as few blocks as a sweep can manage: with 4 blocks, of which
    w1 holds 0 to 2 and w2 holds 1 to 3, it is w1, w1, w2, w2.
    """
    for limit in range(1, num_blocks + 1):
        workers = _sweep(ready, targets, source, num_blocks, limit)
        if workers is not None:
            return workers
    raise AssertionError(f"{targets} with source {source} do not hold the whole model")


def _needed(
    ready: Mapping[WorkerId, Collection[int]], cover: Sequence[WorkerId]
) -> tuple[WorkerId, ...]:
    """The workers of a cover without those that the others can do without."""
    needed = list(cover)
    for worker in cover:
        others = {b for other in needed if other != worker for b in ready[other]}
        if others.issuperset(ready[worker]):
            needed.remove(worker)
    return tuple(needed)


def _sweep(
    ready: Mapping[WorkerId, Collection[int]],
    targets: Sequence[WorkerId],
    source: WorkerId | None,
    num_blocks: int,
    limit: int,
) -> list[WorkerId] | None:
    """Who runs each block if no target may run more than `limit`; None if none can.

    Of the targets that hold the next block, the one that holds fewest of those still to
    come goes on as long as it can: the others will have other chances.
    """
    room = dict.fromkeys(targets, limit)
    workers: list[WorkerId] = []
    while len(workers) < num_blocks:
        block = len(workers)
        holders = [worker for worker in targets if block in ready[worker]]
        if not holders and source is not None:
            workers.append(source)
            continue
        able = [worker for worker in holders if room[worker] > 0]
        if not able:
            return None
        chosen = min(able, key=lambda w: sum(b >= block for b in ready[w]))
        while room[chosen] > 0 and len(workers) in ready[chosen]:
            workers.append(chosen)
            room[chosen] -= 1
    return workers
