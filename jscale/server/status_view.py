"""The manager's status as the public endpoint tells it."""

from collections.abc import Iterable

from jscale.cluster.gateway_messages import Replica, StatusChanged
from jscale.proto.v1 import jscale_pb2 as pb
from jscale.server.router import Router

PHASES = {
    "LOADING": pb.PHASE_LOADING,
    "PIPELINED": pb.PHASE_PIPELINED,
    "LOCAL": pb.PHASE_LOCAL,
    "LEAVING": pb.PHASE_LEAVING,
}


def status_response(
    status: StatusChanged | None, replicas: Iterable[Replica], router: Router
) -> pb.ModelStatusResponse:
    """Workers and pipelines; empty, with a note, before the manager said anything."""
    if status is None:
        return pb.ModelStatusResponse(note="the manager is not there yet")
    capacities = {replica.pipeline: replica.capacity for replica in replicas}
    return pb.ModelStatusResponse(
        model=status.model_name,
        block_sizes_bytes=status.block_sizes_bytes,
        num_workers_wanted=status.num_workers_wanted,
        workers=[
            pb.WorkerStatus(
                worker=worker.worker,
                phase=PHASES.get(worker.phase, pb.PHASE_UNSPECIFIED),
                blocks=worker.blocks,
                received_bytes=worker.received_bytes,
                bytes_per_s=worker.bytes_per_s,
                num_tokens=router.num_tokens_of[worker.worker],
                data_path=worker.data_path,
            )
            for worker in status.workers
        ],
        pipelines=[
            pb.Pipeline(
                id=spec.pipeline,
                stages=[
                    pb.Stage(
                        worker=stage.worker,
                        first_block=stage.first_block,
                        num_blocks=stage.num_blocks,
                    )
                    for stage in spec.stages
                ],
                num_running=router.outstanding(spec.pipeline),
                capacity=capacities.get(spec.pipeline, 0),
            )
            for spec in status.pipelines
        ],
        note=status.note,
        manager_epoch=status.epoch,
    )
