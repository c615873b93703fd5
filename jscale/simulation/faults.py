"""What goes wrong in a simulated cluster, and who comes back when."""

from jscale.core.units import NS_PER_S
from jscale.simulation.settings import Fault
from jscale.simulation.worker import SimulatedWorker
from jscale.simulation.world import World

RESTART_NS = NS_PER_S
"""How long until a manager, launcher or gateway that was killed runs again."""

BREAK_NS = 2 * NS_PER_S
"""Connections over a link that is cut for so long break."""


class Faults:
    """Owns what is broken now."""

    def __init__(self, world: World) -> None:
        self._world = world

    def happen(self, fault: Fault) -> None:
        """Something goes wrong, or right again."""
        match fault.kind:
            case "kill-manager":
                self._world.kill_manager(RESTART_NS)
            case "kill-launcher":
                self._world.kill_launcher(RESTART_NS)
            case "kill-gateway":
                self._world.kill_gateway(RESTART_NS)
            case "heal-link":
                self._world.heal()
            case _:
                worker = self._pick(fault.worker)
                if worker is not None:
                    self._happen_to(worker, fault)

    def _happen_to(self, worker: SimulatedWorker, fault: Fault) -> None:
        world, host = self._world, worker.device.host
        match fault.kind:
            case "kill-worker":
                world.worker_ended(worker, exit_code=-9)
            case "slow-link":
                world.machines.slow_down(host, fault.share)
            case "cut-link":
                world.machines.slow_down(host, 0.0)
                world.clock.after(BREAK_NS, self._break_if_cut, host)

    def _break_if_cut(self, host: int) -> None:
        if self._world.machines.is_cut(host):
            self._world.break_connections(host)

    def _pick(self, index: int) -> SimulatedWorker | None:
        workers = list(self._world.workers.values())
        return workers[index % len(workers)] if workers else None
