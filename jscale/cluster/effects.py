"""What a manager wants done: the only way out of `ManagerState`."""

import dataclasses

from jscale.cluster.gateway_messages import GatewayCommand, LauncherCommand
from jscale.cluster.messages import WorkerCommand
from jscale.core.ids import WorkerId


@dataclasses.dataclass(frozen=True)
class TellWorker:
    """Send the command on the worker's stream, in order."""

    worker: WorkerId
    command: WorkerCommand


@dataclasses.dataclass(frozen=True)
class TellGateways:
    """Send to every gateway."""

    command: GatewayCommand


@dataclasses.dataclass(frozen=True)
class TellGateway:
    """Send to one gateway, in order with what all are told."""

    gateway: str
    command: GatewayCommand


@dataclasses.dataclass(frozen=True)
class TellLauncher:
    """Send to the launcher."""

    command: LauncherCommand


Effect = TellWorker | TellGateway | TellGateways | TellLauncher
