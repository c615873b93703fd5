"""A moment of a cluster under load, as a dashboard shows it."""

import dataclasses

from jscale.proto.v1 import jscale_pb2 as pb


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What there is to see.

    Attributes:
      status: the cluster.
      headline: what happens now, in a few words.
      elapsed_s: since the load began.
      speeds: tokens per second up to now, the latest last, a fixed time apart.
      stories: the ends of some texts that are being made.
      num_right: finished requests whose tokens are those of a single worker.
      num_wrong: finished requests with other tokens, or none.
    """

    status: pb.ModelStatusResponse
    headline: str
    elapsed_s: float
    speeds: tuple[float, ...]
    stories: tuple[str, ...]
    num_right: int
    num_wrong: int


def status_line(status: pb.ModelStatusResponse) -> str:
    """Holdings and pipelines: `w0 5/5 w1 2/5 | w0[all]  w1[0-1] → w0[2-4]`."""
    num_blocks = len(status.block_sizes_bytes)
    workers = " ".join(
        f"{worker.worker} {len(worker.blocks)}/{num_blocks}"
        for worker in status.workers
    )
    pipelines = "  ".join(pipeline_text(pipeline) for pipeline in status.pipelines)
    note = f" | {status.note}" if status.note else ""
    return f"{workers} | {pipelines}{note}"


def pipeline_text(pipeline: pb.Pipeline) -> str:
    """Which worker runs which blocks: `w1[0-2] → w0[3-4]`."""
    return " → ".join(
        f"{stage.worker}[{stage_blocks(stage)}]"
        if len(pipeline.stages) > 1
        else f"{stage.worker}[all]"
        for stage in pipeline.stages
    )


def stage_blocks(stage: pb.Stage) -> str:
    """The blocks of a stage: `0-2`, or `3` when it is one."""
    last = stage.first_block + stage.num_blocks - 1
    return f"{last}" if stage.num_blocks == 1 else f"{stage.first_block}-{last}"
