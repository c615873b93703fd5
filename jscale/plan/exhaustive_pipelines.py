"""The best of all pipelines that are allowed, by trying each: for small clusters."""

import itertools
from collections.abc import Iterator, Sequence

from jscale.core.ids import WorkerId
from jscale.plan.execution import ExecutionPipeline, Holdings
from jscale.plan.pipeline_cost import DEFAULT_COSTS, ServingCosts, throughput


def best_pipelines(
    holdings: Holdings,
    costs: ServingCosts = DEFAULT_COSTS,
    *,
    max_pipelines_per_worker: int,
) -> tuple[tuple[ExecutionPipeline, ...], float]:
    """The fastest set of pipelines, and its tokens per second.

    Up to four workers and four blocks it is a matter of seconds.
    """
    best: tuple[ExecutionPipeline, ...] = ()
    best_rate = -1.0
    for pipelines in every_choice(
        holdings, max_pipelines_per_worker=max_pipelines_per_worker
    ):
        rate = throughput(pipelines, costs).tokens_per_s
        if rate > best_rate * (1 + 1e-9):
            best, best_rate = pipelines, rate
    return best, best_rate


def every_choice(
    holdings: Holdings, *, max_pipelines_per_worker: int
) -> Iterator[tuple[ExecutionPipeline, ...]]:
    """Every set of pipelines within the rules of the system, once.

    Every complete worker has its local replica; a target takes part in one pipeline at
    most; a pipeline has one source at most, which has no more than
    `max_pipelines_per_worker`. Any of them may run any block that it holds.
    """
    local = tuple(
        ExecutionPipeline.local(worker, holdings.num_blocks)
        for worker in holdings.complete_workers
    )
    sources = holdings.complete_workers
    for teams in _every_division(holdings.partial_workers):
        options: list[list[tuple[WorkerId | None, ExecutionPipeline]]] = [
            [
                (source, pipeline)
                for source in (None, *sources)
                for pipeline in _every_pipeline(holdings, team, source)
            ]
            for team in teams
        ]
        for chosen in itertools.product(*options):
            used = [source for source, _ in chosen if source is not None]
            if all(used.count(each) <= max_pipelines_per_worker for each in sources):
                yield local + tuple(pipeline for _, pipeline in chosen)


def _every_pipeline(
    holdings: Holdings, team: Sequence[WorkerId], source: WorkerId | None
) -> Iterator[ExecutionPipeline]:
    """Every way in which all of a team, and the source if there is one, take part."""
    members = (*team, source) if source is not None else tuple(team)
    holders = [
        [worker for worker in members if holdings.holds(worker, block)]
        for block in range(holdings.num_blocks)
    ]
    for runners in itertools.product(*holders):
        if set(runners) == set(members):
            yield ExecutionPipeline.of_workers(runners)


def _every_division(
    targets: Sequence[WorkerId],
) -> Iterator[tuple[tuple[WorkerId, ...], ...]]:
    """Every way to put some of the targets into teams, the others into none."""
    if not targets:
        yield ()
        return
    first, rest = targets[0], targets[1:]
    yield from _every_division(rest)
    for size in range(len(rest) + 1):
        for others in itertools.combinations(rest, size):
            remaining = tuple(worker for worker in rest if worker not in others)
            for division in _every_division(remaining):
                yield ((first, *others), *division)
