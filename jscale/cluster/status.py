"""The manager's records as gateways and people are told of them."""

from collections.abc import Iterable, Mapping

from jscale.cluster.gateway_messages import Replica, StatusChanged, WorkerStatus
from jscale.cluster.messages import ModelSpec
from jscale.cluster.records import PipelineRecord, WorkerRecord
from jscale.core.ids import WorkerId


def describe_replica(
    spec: ModelSpec, workers: Mapping[WorkerId, WorkerRecord], record: PipelineRecord
) -> Replica:
    """An open pipeline, and what it can take."""
    return Replica(
        pipeline=record.spec.pipeline,
        head=record.spec.head,
        serve_address=workers[record.spec.head].serve_address,
        is_local=record.spec.is_local,
        capacity=spec.engine.max_sequences * len(record.spec.stages),
        workers=record.spec.workers,
    )


def describe_status(
    spec: ModelSpec,
    workers: Mapping[WorkerId, WorkerRecord],
    open_now: Iterable[PipelineRecord],
    *,
    num_wanted: int | None,
    note: str,
    epoch: int,
) -> StatusChanged:
    """The cluster as people see it. O(workers + pipelines)."""
    pipelines = tuple(record.spec for record in open_now)
    local = {pipeline.head for pipeline in pipelines if pipeline.is_local}
    used = {worker for pipeline in pipelines for worker in pipeline.workers}

    def phase(record: WorkerRecord) -> str:
        if record.is_leaving:
            return "LEAVING"
        if record.worker in local:
            return "LOCAL"
        return "PIPELINED" if record.worker in used else "LOADING"

    return StatusChanged(
        model_name=spec.model_name,
        block_sizes_bytes=spec.block_sizes_bytes,
        num_workers_wanted=len(workers) if num_wanted is None else num_wanted,
        workers=tuple(
            WorkerStatus(
                worker=record.worker,
                phase=phase(record),
                blocks=tuple(sorted(record.blocks)),
                received_bytes=record.received_bytes,
                bytes_per_s=record.bytes_per_s,
                data_path=record.data_path,
            )
            for record in sorted(workers.values(), key=lambda r: r.worker)
        ),
        pipelines=pipelines,
        note=note,
        epoch=epoch,
    )
