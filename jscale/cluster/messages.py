"""What manager and workers say to each other; beside it `gateway_messages`.

Values only: every message is frozen and travels as msgpack. Reports go up to the
manager and say what happened (past tense); commands come down from it (imperative).
"""

import msgspec

from jscale.core.ids import PipelineId, PlanId, WorkerId
from jscale.engine.config import EngineConfig
from jscale.pipeline.messages import PipelineSpec

PROTOCOL_VERSION = 3
"""Both sides name theirs in the first message; another number is refused."""


class Message(msgspec.Struct, frozen=True, tag=True):
    """A message of the control plane; subclasses are final."""


class ModelSpec(msgspec.Struct, frozen=True):
    """What every worker of a model must agree on."""

    model_name: str
    manifest: bytes
    engine: EngineConfig
    chunk_size_bytes: int
    block_sizes_bytes: tuple[int, ...]

    @property
    def num_blocks(self) -> int:
        """How many blocks the model is cut into."""
        return len(self.block_sizes_bytes)


class Bundle(msgspec.Struct, frozen=True):
    """Compiled executables, named by their digest."""

    sha256: str
    size_bytes: int
    fingerprint: str


class Member(msgspec.Struct, frozen=True):
    """A worker and where its data plane listens."""

    worker: WorkerId
    address: str


# --- worker -> manager ---------------------------------------------------------


class WorkerHello(Message, frozen=True):
    """The first message of a worker, also after it lost sight of the manager.

    `host` and `leaf` name its machine and the switch that it is plugged into; workers
    of one host share its link. Of rates, in bytes/s, 0 says that they are not known:
    of the host's link in each direction, and of a copy of the model that the worker
    can read without one: of any model, or of those that are in the host's memory, named
    by the fingerprints of their manifests. `data_path` is how chunks come
    to where it computes, once that is chosen.
    """

    worker: WorkerId
    data_address: str
    serve_address: str
    blocks: tuple[int, ...] = ()
    bundle: Bundle | None = None
    has_executables: bool = False
    has_all_executables: bool = False
    pipelines: tuple[PipelineSpec, ...] = ()
    can_load_from_disk: bool = True
    host: str = ""
    leaf: str = ""
    link_bytes_per_s: float = 0
    local_copy_bytes_per_s: float = 0
    in_host_memory: tuple[str, ...] = ()
    host_memory_bytes_per_s: float = 0
    data_path: str = ""
    protocol_version: int = PROTOCOL_VERSION

    @property
    def is_back(self) -> bool:
        """It was attached before, to this manager or to an earlier one."""
        return bool(self.blocks or self.pipelines or self.has_executables)


class BlockReady(Message, frozen=True):
    """A block is verified and its parameters are views into the arena."""

    block: int


class ExecutablesReady(Message, frozen=True):
    """The worker can run stages; `bundle` is what it could send to others.

    Said a second time, as complete, when the fused executable is there too.
    """

    origin: str
    took_ms: float
    is_complete: bool
    bundle: Bundle | None


class TransferProgressed(Message, frozen=True):
    """How far a multicast has come at this member.

    `received_bytes` counts all that it holds, also by earlier plans.
    """

    plan: PlanId
    received_bytes: int
    bytes_per_s: float


class TransferEnded(Message, frozen=True):
    """This member's part of a plan is over; `missing_chunks` is 0 if it is whole."""

    plan: PlanId
    missing_chunks: int


class DataPathChosen(Message, frozen=True):
    """How chunks come to where the worker computes.

    `host`, `dmabuf`, `peermem`, or `staged: ` or `copied: ` and why.
    """

    data_path: str


class LinkUsed(Message, frozen=True):
    """Shares of the worker's link that were in use lately, 0 to 1, by whatever.

    Told when they change. Serving uses a link, and so do other models' workers.
    """

    outbound: float
    inbound: float


class LoadFailed(Message, frozen=True):
    """Blocks could not be read from disk."""

    reason: str


class PipelineOpened(Message, frozen=True):
    """This worker's stages of the pipeline are ready to run."""

    pipeline: PipelineId


class PipelineRefused(Message, frozen=True):
    """This worker cannot take part, for want of pages say."""

    pipeline: PipelineId
    reason: str


class PipelineClosed(Message, frozen=True):
    """This worker holds nothing of the pipeline any more."""

    pipeline: PipelineId
    reason: str = ""


class PeerLost(Message, frozen=True):
    """A data connection to another worker broke."""

    peer: WorkerId


class LeaveRequested(Message, frozen=True):
    """The worker was asked to go (SIGTERM) and wants its sequences taken over."""


WorkerReport = (
    WorkerHello
    | BlockReady
    | ExecutablesReady
    | TransferProgressed
    | TransferEnded
    | DataPathChosen
    | LinkUsed
    | LoadFailed
    | PipelineOpened
    | PipelineRefused
    | PipelineClosed
    | PeerLost
    | LeaveRequested
)


# --- manager -> worker ---------------------------------------------------------


class Welcome(Message, frozen=True):
    """The answer to a hello: what is served, and how."""

    spec: ModelSpec
    protocol_version: int = PROTOCOL_VERSION


class Refuse(Message, frozen=True):
    """The answer to a hello that cannot be accepted; the worker ends with it."""

    reason: str


class LoadFromDisk(Message, frozen=True):
    """Read the blocks that are missing from the model's block store."""

    path: str


class JoinMulticast(Message, frozen=True):
    """Take part in a plan: all members are told the same, and the rest follows.

    A member is part of one plan at a time: this one replaces any other, and what has
    arrived is not sent again.

    Attributes:
      plan: its number.
      kind: of every sub-group, a key of `PLAN_KINDS`.
      groups: a source, and its targets in order, for each sub-group.
      spares: sources that send nothing by plan; targets ask them when theirs is lost.
      bundle: the executables that come first.
      lacking: sources that lack these, and ask the first that does not for them.
    """

    plan: PlanId
    kind: str
    groups: tuple[tuple[Member, ...], ...]
    spares: tuple[Member, ...] = ()
    bundle: Bundle | None = None
    lacking: tuple[WorkerId, ...] = ()

    @property
    def sources(self) -> tuple[Member, ...]:
        """Who holds every block, or reads what it lacks."""
        return (*(group[0] for group in self.groups), *self.spares)

    @property
    def targets(self) -> tuple[Member, ...]:
        """Who is to get what it lacks."""
        return tuple(member for group in self.groups for member in group[1:])

    @property
    def members(self) -> tuple[Member, ...]:
        """Everyone, sources first."""
        return (*self.sources, *self.targets)


class CancelMulticast(Message, frozen=True):
    """Stop sending and receiving for a plan; what arrived stays."""

    plan: PlanId


class OpenPipeline(Message, frozen=True):
    """Get the stages of this pipeline that are yours ready."""

    spec: PipelineSpec


class ClosePipeline(Message, frozen=True):
    """Give the pipeline's pages back; its head returns the live sequences.

    With `finish` the head first runs what it has to the end, taking nothing new:
    for a last replica that nobody can take over from. With `continued_by` the head
    hands its sequences to that pipeline, which is open everywhere.
    """

    pipeline: PipelineId
    reason: str
    finish: bool = False
    continued_by: PipelineId | None = None


class Leave(Message, frozen=True):
    """Nothing needs you any more: close what is open and end."""

    reason: str


WorkerCommand = (
    Welcome
    | Refuse
    | LoadFromDisk
    | JoinMulticast
    | CancelMulticast
    | OpenPipeline
    | ClosePipeline
    | Leave
)
