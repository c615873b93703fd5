"""What the manager decides, each as a pure function over its records."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from jscale.cluster.pipeline_book import PipelineBook
from jscale.cluster.roster import Roster
from jscale.core.ids import PipelineId, WorkerId
from jscale.engine.config import EngineConfig
from jscale.plan.execution import ExecutionPipeline, Holdings, PipelinePolicy
from jscale.plan.execution_policy import ExecutionPolicy

PAUSE_NS_PER_WORKER = 20_000
"""Pipelines are chosen, and people told, at most so often for each worker: choosing
takes about half of it, so that it takes half of the time however many there are."""

PAUSE_NS_MIN = 5_000_000
"""A shorter pause, that of 250 workers, is none."""


@dataclasses.dataclass(frozen=True)
class PipelineChoice:
    """A pipeline to open, for whose sake, and the open one that it continues."""

    pipeline: ExecutionPipeline
    serves: frozenset[WorkerId]
    continues: PipelineId | None


def choose_local_loaders(
    roster: Roster, now_ns: int, *, all_of_them: bool
) -> list[WorkerId]:
    """Who reads a copy of its own although it could be sent the model.

    Those whose copy is read faster than their link brings it; or everyone that can.
    """
    return [
        worker
        for worker in (roster.waiting if all_of_them else roster.near)
        if roster[worker].may_read(now_ns)
    ]


def choose_disk_loader(roster: Roster, now_ns: int) -> WorkerId | None:
    """Who reads the model from disk: someone, if no worker holds or reads all of it.

    The one that holds most already, so that the least is read, then the one with the
    fastest copy; but nobody who is being sent the model, by a source that is leaving
    say. O(1) unless somebody has to.
    """
    if roster.loading or not roster.waiting:
        return None
    if not all(worker in roster.leaving for worker in roster.complete):
        return None
    able = [
        roster[worker] for worker in roster.waiting if roster[worker].may_read(now_ns)
    ]
    if not able:
        return None
    return max(
        able, key=lambda r: (len(r.blocks), r.local_copy_bytes_per_s, -r.attached_ns)
    ).worker


def choose_pipelines(
    roster: Roster,
    pipelines: PipelineBook,
    *,
    num_blocks: int,
    policy: PipelinePolicy,
    now_ns: int,
    only_complete: bool = False,
) -> list[PipelineChoice]:
    """The pipelines to open now.

    With `only_complete`, workers that still load take no part. Those for whom a
    pipeline has just failed wait a moment for the next.
    """
    able = {
        worker: record.blocks if record.has_executables else frozenset()
        for worker, record in roster.items()
        if not record.is_leaving and (worker in roster.complete or not only_complete)
    }
    current = {r.pipeline: r for r in pipelines if not r.is_closing}
    proposed = policy.propose(Holdings(able, num_blocks), tuple(current))
    chosen = []
    for pipeline in proposed:
        if pipeline in current:
            continue
        serves = beneficiaries(pipeline, able, num_blocks)
        if any(roster[worker].no_pipeline_before_ns > now_ns for worker in serves):
            continue
        found = {r.spec.pipeline: r for w in serves for r in pipelines.serving(w)}
        rivals = [found[each] for each in sorted(found)]
        if all(record.is_open for record in rivals):
            older = [r for r in rivals if pipeline.continues(r.pipeline)]
            continued = older[-1].spec.pipeline if older else None
            chosen.append(PipelineChoice(pipeline, serves, continued))
    return chosen


def lease_pages(engine: EngineConfig, *, is_local: bool) -> int:
    """KV pages that a pipeline takes on each of its workers.

    Half of a worker's pages are its local replica's; the other half is shared by the
    pipelines that it may be part of, twice as many as the policy allows, since a new
    one is opened before the old one is closed. One whole context always fits.
    """
    half = engine.num_pages // 2
    if is_local:
        return max(half, engine.pages_per_sequence)
    return max(
        half // (2 * ExecutionPolicy().max_pipelines_per_worker),
        engine.pages_per_sequence,
    )


def beneficiaries(
    pipeline: ExecutionPipeline,
    blocks: Mapping[WorkerId, Collection[int]],
    num_blocks: int,
) -> frozenset[WorkerId]:
    """For whose sake it is: its incomplete workers, or the one of a local replica."""
    incomplete = {w for w in pipeline.workers if len(blocks[w]) < num_blocks}
    return frozenset(incomplete or pipeline.workers)


def choose_leavers(roster: Roster, *, num_excess: int) -> Sequence[WorkerId]:
    """Who leaves when fewer are wanted: the incomplete first, then the youngest."""
    staying = [worker for worker in roster if worker not in roster.leaving]
    youngest_first = staying[::-1]
    youngest_first.sort(key=lambda worker: worker in roster.complete)
    return youngest_first[:num_excess]


def is_too_soon(num_workers: int, last_ns: int, now_ns: int) -> bool:
    """Whether what costs O(workers) was done so lately that it waits."""
    pause_ns = PAUSE_NS_PER_WORKER * num_workers
    return pause_ns > PAUSE_NS_MIN and now_ns < last_ns + pause_ns
