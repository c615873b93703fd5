"""What can happen to a worker: the only ways into `WorkerState`."""

import dataclasses

from jscale.cluster.messages import Bundle, WorkerCommand
from jscale.core.ids import PipelineId, PlanId, WorkerId

EXECUTABLES_REGION = 0
"""The region of a `ChunkTable` that holds compiled executables; block i is 1 + i."""


@dataclasses.dataclass(frozen=True)
class ManagerAttached:
    """The stream to the manager is open: it must be told who we are."""


@dataclasses.dataclass(frozen=True)
class ManagerDetached:
    """The stream to the manager broke; what is open goes on serving."""


@dataclasses.dataclass(frozen=True)
class CommandArrived:
    """The manager wants something."""

    command: WorkerCommand


@dataclasses.dataclass(frozen=True)
class RegionFilled:
    """Every byte of a region is there, not yet verified."""

    region: int


@dataclasses.dataclass(frozen=True)
class BlockPublished:
    """The block's digest was right and its parameters are views into the arena."""

    block: int


@dataclasses.dataclass(frozen=True)
class RegionCorrupt:
    """The digest was wrong: the region's chunks count as missing again."""

    region: int
    reason: str


@dataclasses.dataclass(frozen=True)
class ExecutablesLoaded:
    """Stages can be run; `origin` says from where: received, compiled or cached.

    Complete if the fused executable of the whole model is loaded too.
    """

    origin: str
    took_ms: float
    is_complete: bool
    bundle: Bundle | None


@dataclasses.dataclass(frozen=True)
class ExecutablesMismatched:
    """What was received does not fit this machine."""

    reason: str


@dataclasses.dataclass(frozen=True)
class DiskLoadFailed:
    """The block store could not be read."""

    reason: str


@dataclasses.dataclass(frozen=True)
class TransferAdvanced:
    """So much of a plan has arrived here."""

    plan: PlanId
    received_bytes: int
    bytes_per_s: float


@dataclasses.dataclass(frozen=True)
class TransferOver:
    """Our part of a plan is over; `missing_chunks` is 0 if all arrived."""

    plan: PlanId
    missing_chunks: int


@dataclasses.dataclass(frozen=True)
class DataPathChosen:
    """The arena is there, and the transport was told of it."""

    data_path: str


@dataclasses.dataclass(frozen=True)
class LinkMeasured:
    """Other shares of our link are in use than before."""

    outbound: float
    inbound: float


@dataclasses.dataclass(frozen=True)
class StagesOpened:
    """Our stages of the pipeline have their pages."""

    pipeline: PipelineId


@dataclasses.dataclass(frozen=True)
class StagesRefused:
    """Our stages could not be opened."""

    pipeline: PipelineId
    reason: str


@dataclasses.dataclass(frozen=True)
class StagesClosed:
    """Our stages gave their pages back; if we were the head, so are the sequences."""

    pipeline: PipelineId
    reason: str


@dataclasses.dataclass(frozen=True)
class PeerGone:
    """A data connection to another worker broke."""

    peer: WorkerId


@dataclasses.dataclass(frozen=True)
class StopRequested:
    """SIGTERM: leave, but let nobody down."""


@dataclasses.dataclass(frozen=True)
class DrainTimedOut:
    """We asked to leave and were not let go in time."""


WorkerEvent = (
    ManagerAttached
    | ManagerDetached
    | CommandArrived
    | RegionFilled
    | BlockPublished
    | RegionCorrupt
    | ExecutablesLoaded
    | ExecutablesMismatched
    | DiskLoadFailed
    | TransferAdvanced
    | TransferOver
    | DataPathChosen
    | LinkMeasured
    | StagesOpened
    | StagesRefused
    | StagesClosed
    | PeerGone
    | StopRequested
    | DrainTimedOut
)
