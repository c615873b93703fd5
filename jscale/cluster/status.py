"""The manager's records as gateways and people are told of them."""

from collections.abc import Collection, Iterable, Mapping

from jscale.cluster.messages import (
    ModelSpec,
    Replica,
    StatusChanged,
    WorkerStatus,
)
from jscale.cluster.records import PipelineRecord, WorkerRecord
from jscale.core.ids import PipelineId, WorkerId


def describe_replicas(
    spec: ModelSpec,
    workers: Mapping[WorkerId, WorkerRecord],
    pipelines: Iterable[PipelineRecord],
    retiring: Collection[PipelineId],
) -> dict[PipelineId, Replica]:
    """Every open pipeline that is not about to be retired, and what it can take."""
    return {
        record.spec.pipeline: Replica(
            pipeline=record.spec.pipeline,
            head=record.spec.head,
            serve_address=workers[record.spec.head].serve_address,
            is_local=record.spec.is_local,
            capacity=spec.engine.max_sequences * len(record.spec.stages),
            workers=record.spec.workers,
        )
        for record in pipelines
        if record.is_open and record.spec.pipeline not in retiring
    }


def describe_status(
    spec: ModelSpec,
    workers: Mapping[WorkerId, WorkerRecord],
    pipelines: Iterable[PipelineRecord],
    *,
    num_wanted: int | None,
    note: str,
    epoch: int,
) -> StatusChanged:
    """The cluster as people see it."""
    open_now = [record for record in pipelines if record.is_open]
    return StatusChanged(
        model_name=spec.model_name,
        block_sizes_bytes=spec.block_sizes_bytes,
        num_workers_wanted=len(workers) if num_wanted is None else num_wanted,
        workers=tuple(
            WorkerStatus(
                worker=record.worker,
                phase=_phase(record, open_now),
                blocks=tuple(sorted(record.blocks)),
                received_bytes=record.received_bytes,
                bytes_per_s=record.bytes_per_s,
            )
            for record in sorted(workers.values(), key=lambda r: r.worker)
        ),
        pipelines=tuple(record.spec for record in open_now),
        note=note,
        epoch=epoch,
    )


def _phase(record: WorkerRecord, open_now: list[PipelineRecord]) -> str:
    if record.is_leaving:
        return "LEAVING"
    used = [pipeline for pipeline in open_now if pipeline.uses(record.worker)]
    if any(pipeline.spec.is_local for pipeline in used):
        return "LOCAL"
    return "PIPELINED" if used else "LOADING"
