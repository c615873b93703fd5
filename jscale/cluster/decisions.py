"""What the manager decides, each as a pure function over its records."""

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from jscale.cluster.records import PipelineRecord, TransferRecord, WorkerRecord
from jscale.core.ids import PipelineId, WorkerId
from jscale.engine.config import EngineConfig
from jscale.plan.execution import ExecutionPipeline, Holdings, PipelinePolicy
from jscale.plan.execution_policy import ExecutionPolicy

GRACE_NS = 3_000_000_000
"""How long a target waits for others that were started with it, so that one multicast
serves them all: process start differs by about a second on a busy machine."""


@dataclasses.dataclass(frozen=True)
class PipelineChoice:
    """A pipeline to open, for whose sake, and the open one that it continues."""

    pipeline: ExecutionPipeline
    serves: frozenset[WorkerId]
    continues: PipelineId | None


def is_complete(record: WorkerRecord, num_blocks: int) -> bool:
    """Whether the worker holds the whole model."""
    return len(record.blocks) == num_blocks


def choose_transfers(
    workers: Mapping[WorkerId, WorkerRecord],
    transfers: Iterable[TransferRecord],
    *,
    num_blocks: int,
    num_launching: int,
    now_ns: int,
) -> list[tuple[WorkerId, tuple[WorkerId, ...]]]:
    """The multicasts to start now, as (source, targets).

    A source takes part in one multicast at a time. Targets are dealt out evenly to
    the sources that are free; those that were started together wait for one another,
    at most `GRACE_NS`.
    """
    busy = {worker for record in transfers for worker in record.members}
    free = [record for record in workers.values() if record.worker not in busy]
    sources = [
        record.worker
        for record in free
        if is_complete(record, num_blocks)
        and record.has_all_executables
        and not record.is_leaving
    ]
    targets = [
        record
        for record in free
        if not is_complete(record, num_blocks)
        and not record.is_loading
        and not record.is_leaving
        and record.retry_after_ns <= now_ns
    ]
    if not sources or not targets:
        return []
    waited_ns = now_ns - min(record.attached_ns for record in targets)
    if num_launching and waited_ns < GRACE_NS:
        return []
    sources = sources[: len(targets)]
    return [
        (source, tuple(r.worker for r in targets[index :: len(sources)]))
        for index, source in enumerate(sources)
    ]


def choose_disk_loader(
    workers: Mapping[WorkerId, WorkerRecord],
    transfers: Iterable[TransferRecord],
    *,
    num_blocks: int,
    now_ns: int,
) -> WorkerId | None:
    """Who reads the model from disk: someone, if no worker holds or reads all of it.

    The one that holds most already, so that the least is read; but nobody who is being
    sent the model, by a source that is leaving say.
    """
    receiving = {worker for record in transfers for worker in record.pending}
    staying = [record for record in workers.values() if not record.is_leaving]
    if any(r.is_loading or is_complete(r, num_blocks) for r in staying):
        return None
    able = [
        record
        for record in staying
        if record.can_load_from_disk
        and record.worker not in receiving
        and record.retry_after_ns <= now_ns
    ]
    if not able:
        return None
    return max(able, key=lambda r: (len(r.blocks), -r.attached_ns)).worker


def choose_pipelines(
    workers: Mapping[WorkerId, WorkerRecord],
    pipelines: Iterable[PipelineRecord],
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
        record.worker: record.blocks if record.has_executables else frozenset()
        for record in workers.values()
        if not record.is_leaving
        and (is_complete(record, num_blocks) or not only_complete)
    }
    current = {r.pipeline: r for r in pipelines if not r.is_closing}
    proposed = policy.propose(Holdings(able, num_blocks), tuple(current))
    serving: dict[WorkerId, dict[PipelineId, PipelineRecord]] = defaultdict(dict)
    for record in current.values():
        for worker in record.serves:
            serving[worker][record.spec.pipeline] = record
    chosen = []
    for pipeline in proposed:
        serves = beneficiaries(pipeline, able, num_blocks)
        found = {id_: r for w in serves for id_, r in serving.get(w, {}).items()}
        rivals = [found[id_] for id_ in sorted(found)]
        if any(workers[worker].no_pipeline_before_ns > now_ns for worker in serves):
            continue
        if pipeline not in current and all(record.is_open for record in rivals):
            older = [r for r in rivals if continues(pipeline, r.pipeline)]
            continued = older[-1].spec.pipeline if older else None
            chosen.append(PipelineChoice(pipeline, serves, continued))
    return chosen


def continues(newer: ExecutionPipeline, older: ExecutionPipeline) -> bool:
    """Whether a re-cut may keep the KV that is not the first stage's.

    Both have two stages on the same two workers, and the first has grown: what the
    second runs, it ran before. Only the first stage recomputes, and the source, which
    all pipelines wait for, goes on at once.
    """
    return (
        len(newer.stages) == len(older.stages) == 2
        and newer.workers == older.workers
        and newer.stages[0].num_blocks > older.stages[0].num_blocks
    )


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


def choose_leavers(
    workers: Mapping[WorkerId, WorkerRecord], *, num_blocks: int, num_wanted: int
) -> Sequence[WorkerId]:
    """Who leaves when fewer are wanted: the incomplete first, then the youngest."""
    staying = [record for record in workers.values() if not record.is_leaving]
    excess = max(0, len(staying) - num_wanted)
    youngest_first = staying[::-1]
    youngest_first.sort(key=lambda record: is_complete(record, num_blocks))
    return [record.worker for record in youngest_first[:excess]]
