"""A simulated manager process: the real `ManagerState` between streams."""

from typing import TYPE_CHECKING

from jscale.cluster import events, gateway_messages, messages, worker_events
from jscale.cluster.effects import (
    Effect,
    TellGateway,
    TellGateways,
    TellLauncher,
    TellWorker,
)
from jscale.cluster.manager_state import ManagerState
from jscale.core.ids import WorkerId
from jscale.core.units import NS_PER_MS
from jscale.simulation.gateway import SimulatedGateway
from jscale.simulation.worker import SimulatedWorker

if TYPE_CHECKING:
    from jscale.simulation.world import World

TICK_NS = 100 * NS_PER_MS
"""How often it is told that time passes, as the real one is."""


class SimulatedManager:
    """Carries out what `ManagerState` wants."""

    def __init__(self, world: "World", num_workers: int | None, epoch: int) -> None:
        self._world = world
        self.is_alive = True
        self.epoch = epoch
        self.workers: dict[WorkerId, SimulatedWorker] = {}
        self._gateways: dict[str, SimulatedGateway] = {}
        self._has_launcher = False
        self.state = ManagerState(
            world.spec,
            model_path="/model",
            num_workers=num_workers,
            policy=world.system.policy,
            epoch=epoch,
        )
        world.clock.after(TICK_NS, self._tick)

    def stop(self) -> None:
        """The process is gone."""
        self.is_alive = False
        # Also those whose hello has not come: their streams break like any other.
        for worker in list(self._world.workers.values()):
            if worker.is_attached:
                self._world.streams.send(self, worker, worker.detach)
        self.workers.clear()
        self._gateways.clear()

    # --- what others say ---------------------------------------------------------

    def worker_said(
        self, worker: SimulatedWorker, report: messages.WorkerReport
    ) -> None:
        """A report, or a hello, has come."""
        if isinstance(report, messages.WorkerHello):
            if worker.is_alive:
                self.workers[worker.name] = worker
                self._step(events.WorkerAttached(report))
        elif self.workers.get(worker.name) is worker:
            self._step(events.WorkerReported(worker.name, report))

    def worker_gone(self, worker: SimulatedWorker) -> None:
        """A worker's stream broke."""
        if self.workers.get(worker.name) is worker:
            del self.workers[worker.name]
            self._step(events.WorkerDetached(worker.name))

    def gateway_said(
        self, gateway: SimulatedGateway, report: gateway_messages.GatewayReport
    ) -> None:
        """A gateway said something."""
        match report:
            case gateway_messages.GatewayHello():
                self._gateways[gateway.name] = gateway
                self._step(events.GatewayAttached(report))
            case gateway_messages.ScaleTo(num_workers):
                self._step(events.ScaleRequested(num_workers))
            case gateway_messages.LoadReported() if gateway.name in self._gateways:
                self._step(events.GatewayReported(gateway.name, report))

    def gateway_gone(self, gateway: SimulatedGateway) -> None:
        """A gateway's stream broke."""
        if self._gateways.get(gateway.name) is gateway:
            del self._gateways[gateway.name]
            self._step(events.GatewayDetached(gateway.name))

    def launcher_attached(self, event: events.LauncherAttached) -> None:
        """There is a launcher."""
        self._has_launcher = True
        self._step(event)

    def launcher_gone(self) -> None:
        """There is none any more."""
        self._has_launcher = False
        self._step(events.LauncherDetached())

    def process_ended(self, worker: WorkerId, exit_code: int) -> None:
        """The launcher saw a worker's process end."""
        self._step(events.WorkerProcessEnded(worker, exit_code))

    # --- what it does ------------------------------------------------------------

    def _tick(self) -> None:
        if self.is_alive:
            self._step(events.Ticked())
            self._world.clock.after(TICK_NS, self._tick)

    def _step(self, event: events.Event) -> None:
        wanted = self.state.step(event, self._world.clock.now_ns)
        self._world.saw_manager(event, wanted)
        for effect in wanted:
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        send = self._world.streams.send
        match effect:
            case TellWorker(worker, command):
                told = self.workers.get(worker)
                if told is not None:
                    event = worker_events.CommandArrived(command)
                    send(self, told, told.post, event)
            case TellGateway(name, command):
                if (gateway := self._gateways.get(name)) is not None:
                    send(self, gateway, gateway.manager_said, command)
            case TellGateways(command):
                for gateway in self._gateways.values():
                    send(self, gateway, gateway.manager_said, command)
            case TellLauncher(gateway_messages.LaunchWorker(worker)):
                launcher = self._world.launcher
                send(self, launcher, launcher.launch, worker)
            case TellLauncher(gateway_messages.RememberWanted() as wanted):
                launcher = self._world.launcher
                send(self, launcher, launcher.remember, wanted)
            case _:
                raise AssertionError(f"unknown effect {effect}")
