"""What can happen to a manager: the only ways into `ManagerState`."""

import dataclasses

from jscale.cluster.gateway_messages import GatewayHello, LoadReported
from jscale.cluster.messages import WorkerHello, WorkerReport
from jscale.core.ids import WorkerId


@dataclasses.dataclass(frozen=True)
class WorkerAttached:
    """A worker opened its stream; after a manager's restart it tells what it has."""

    hello: WorkerHello


@dataclasses.dataclass(frozen=True)
class WorkerDetached:
    """A worker's stream broke or ended: it is taken for lost."""

    worker: WorkerId


@dataclasses.dataclass(frozen=True)
class WorkerReported:
    """A worker said something."""

    worker: WorkerId
    report: WorkerReport


@dataclasses.dataclass(frozen=True)
class WorkerProcessEnded:
    """The launcher saw a worker's process end."""

    worker: WorkerId
    exit_code: int


@dataclasses.dataclass(frozen=True)
class GatewayAttached:
    """A gateway opened its stream: it must be told everything."""

    hello: GatewayHello


@dataclasses.dataclass(frozen=True)
class GatewayDetached:
    """A gateway's stream broke or ended."""

    gateway: str


@dataclasses.dataclass(frozen=True)
class GatewayReported:
    """A gateway said what it has to do."""

    gateway: str
    load: LoadReported


@dataclasses.dataclass(frozen=True)
class LauncherAttached:
    """Somebody who can start worker processes is there, and runs these already.

    It may know what an earlier manager wanted, of that epoch, and who ended before.
    """

    workers: tuple[WorkerId, ...] = ()
    num_workers_wanted: int | None = None
    wanted_epoch: int = 0
    ended: tuple[WorkerId, ...] = ()


@dataclasses.dataclass(frozen=True)
class LauncherDetached:
    """Nobody can start worker processes any more."""


@dataclasses.dataclass(frozen=True)
class ScaleRequested:
    """So many workers are wanted from now on."""

    num_workers: int


@dataclasses.dataclass(frozen=True)
class Ticked:
    """Time passed: what waits for a deadline may go on."""


Event = (
    WorkerAttached
    | WorkerDetached
    | WorkerReported
    | WorkerProcessEnded
    | GatewayAttached
    | GatewayDetached
    | GatewayReported
    | LauncherAttached
    | LauncherDetached
    | ScaleRequested
    | Ticked
)
