"""What a worker's state machine wants done: the only way out of `WorkerState`."""

import dataclasses

from jscale.cluster.messages import Bundle, JoinMulticast, ModelSpec, WorkerReport
from jscale.core.ids import PipelineId, PlanId, WorkerId
from jscale.pipeline.messages import PipelineSpec


@dataclasses.dataclass(frozen=True)
class Report:
    """Send to the manager, in order; dropped while it is away."""

    report: WorkerReport


@dataclasses.dataclass(frozen=True)
class PrepareModel:
    """Reserve the arena for the whole model."""

    spec: ModelSpec


@dataclasses.dataclass(frozen=True)
class ReadFromDisk:
    """Fill the regions of the blocks that are missing."""

    path: str


@dataclasses.dataclass(frozen=True)
class StartMulticast:
    """Send and receive what the plan says."""

    command: JoinMulticast


@dataclasses.dataclass(frozen=True)
class StopMulticast:
    """Send and receive nothing more for the plan."""

    plan: PlanId


@dataclasses.dataclass(frozen=True)
class VerifyBlock:
    """Compare the digest; if right, give the views to the device."""

    block: int


@dataclasses.dataclass(frozen=True)
class LoadExecutables:
    """Load what was received, after checking that it is what the manager named."""

    bundle: Bundle


@dataclasses.dataclass(frozen=True)
class CompileExecutables:
    """Compile from shapes, in the background; keep them to be placed for others."""

    reason: str


@dataclasses.dataclass(frozen=True)
class PlaceExecutables:
    """Put those that were compiled where others can be sent them.

    Never during a transfer, as the numbers of its chunks would change.
    """


@dataclasses.dataclass(frozen=True)
class OpenStages:
    """Get pages for our stages of the pipeline."""

    spec: PipelineSpec


@dataclasses.dataclass(frozen=True)
class CloseStages:
    """Give them back; the head returns its sequences, or finishes them first."""

    pipeline: PipelineId
    reason: str
    finish: bool
    continued_by: PipelineId | None


@dataclasses.dataclass(frozen=True)
class BreakPipelines:
    """A peer is gone: close what it was part of."""

    peer: WorkerId


@dataclasses.dataclass(frozen=True)
class Exit:
    """End the process; `reason` is for the log, and an error if `failed`."""

    reason: str
    failed: bool = False


WorkerEffect = (
    Report
    | PrepareModel
    | ReadFromDisk
    | StartMulticast
    | StopMulticast
    | VerifyBlock
    | LoadExecutables
    | CompileExecutables
    | PlaceExecutables
    | OpenStages
    | CloseStages
    | BreakPipelines
    | Exit
)
