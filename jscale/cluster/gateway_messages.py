"""What gateways and launchers and the manager say to each other.

Values only, as in `messages`: reports go up to the manager, commands come down from it.
"""

import msgspec

from jscale.cluster.messages import PROTOCOL_VERSION, Message, Refuse
from jscale.core.ids import PipelineId, WorkerId
from jscale.pipeline.messages import PipelineSpec


class GatewayHello(Message, frozen=True):
    """The first message of a gateway.

    It brings what the last manager that it saw wanted, so that the next goes on with
    it; of several gateways, the one that saw the latest manager is right.
    """

    gateway: str
    num_workers_wanted: int | None = None
    wanted_epoch: int = 0
    protocol_version: int = PROTOCOL_VERSION


class ScaleTo(Message, frozen=True):
    """So many workers are wanted from now on."""

    num_workers: int


class LoadReported(Message, frozen=True):
    """What a gateway has to do. The last four count up from its start."""

    num_waiting: int
    num_running: int
    num_arrived: int
    num_finished: int
    num_tokens: int
    prompt_tokens: int


class LauncherHello(Message, frozen=True):
    """The first message of whoever can start worker processes.

    A manager that was restarted waits for `workers`, which run already, and gives no
    name of `ended` out again. What the last one wanted comes as from gateways.
    """

    launcher: str
    workers: tuple[WorkerId, ...] = ()
    num_workers_wanted: int | None = None
    wanted_epoch: int = 0
    ended: tuple[WorkerId, ...] = ()
    protocol_version: int = PROTOCOL_VERSION


class WorkerExited(Message, frozen=True):
    """A worker process that the launcher started has ended."""

    worker: WorkerId
    exit_code: int


class LaunchWorker(Message, frozen=True):
    """Start a worker process of that name."""

    worker: WorkerId


class RememberWanted(Message, frozen=True):
    """Keep in mind, for the next manager, how many workers are wanted."""

    num_workers: int
    epoch: int


class Replica(msgspec.Struct, frozen=True):
    """What a gateway may send sequences to."""

    pipeline: PipelineId
    head: WorkerId
    serve_address: str
    is_local: bool
    capacity: int
    workers: tuple[WorkerId, ...]


class ReplicasChanged(Message, frozen=True):
    """Replicas that opened, and those that closed, since this was last said.

    A snapshot, the first that a gateway is told, names all that are open: it replaces
    what was said before.
    """

    opened: tuple[Replica, ...] = ()
    closed: tuple[PipelineId, ...] = ()
    is_snapshot: bool = False


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker as people see it."""

    worker: WorkerId
    phase: str
    blocks: tuple[int, ...]
    received_bytes: int
    bytes_per_s: float
    data_path: str = ""


class StatusChanged(Message, frozen=True):
    """The cluster as people see it."""

    model_name: str
    block_sizes_bytes: tuple[int, ...]
    num_workers_wanted: int
    workers: tuple[WorkerStatus, ...]
    pipelines: tuple[PipelineSpec, ...]
    note: str = ""
    epoch: int = 0


GatewayReport = GatewayHello | ScaleTo | LoadReported
GatewayCommand = ReplicasChanged | StatusChanged | Refuse
LauncherReport = LauncherHello | WorkerExited
LauncherCommand = LaunchWorker | RememberWanted | Refuse
