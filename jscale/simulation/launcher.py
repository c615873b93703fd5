"""A simulated launcher: puts workers on devices and starts their processes."""

import collections
from typing import TYPE_CHECKING

from jscale.cluster.events import LauncherAttached
from jscale.cluster.gateway_messages import RememberWanted
from jscale.core.ids import WorkerId
from jscale.simulation.worker import SimulatedWorker

if TYPE_CHECKING:
    from jscale.simulation.world import World


class SimulatedLauncher:
    """Starts workers where a device is free; those that find none wait for one."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.is_alive = True
        self._waiting: collections.deque[WorkerId] = collections.deque()
        self._is_placing = False
        self._starting: set[WorkerId] = set()
        self._wanted: RememberWanted | None = None

    @property
    def num_starting(self) -> int:
        """Processes that have not attached yet."""
        return len(self._starting) + len(self._waiting)

    def attach(self) -> None:
        """Its stream to the manager is open: it tells whom it runs."""
        manager = self._world.manager
        if self.is_alive and manager.is_alive:
            starting = sorted({*self._starting, *self._waiting})
            running = (*self._world.workers, *starting)
            event = LauncherAttached(running)
            if (wanted := self._wanted) is not None:
                event = LauncherAttached(running, wanted.num_workers, wanted.epoch)
            self._world.streams.send(self, manager, manager.launcher_attached, event)

    def launch(self, worker: WorkerId) -> None:
        """The manager wants a worker of that name."""
        self._waiting.append(worker)
        self._start_soon()

    def remember(self, wanted: RememberWanted) -> None:
        """The next manager is to hear how many this one wanted."""
        self._wanted = wanted

    def ended(self, worker: WorkerId, exit_code: int) -> None:
        """A process has ended: its device is free."""
        manager = self._world.manager
        self._world.streams.send(
            self, manager, manager.process_ended, worker, exit_code
        )
        self._start_soon()

    def stop(self) -> None:
        """It is gone, and with it what it was starting; workers run on."""
        self.is_alive = False
        self._waiting.clear()

    def _start_soon(self) -> None:
        """Those that are wanted at the same time are placed together."""
        if self._waiting and not self._is_placing:
            self._is_placing = True
            self._world.clock.after(0, self._start_waiting)

    def _start_waiting(self) -> None:
        world = self._world
        self._is_placing = False
        if not self._waiting or not world.machines.num_free_devices:
            return
        for device in world.choose_devices(len(self._waiting)):
            name = self._waiting.popleft()
            world.machines.take(name, device)
            world.recorder.started(name, device.host, world.clock.now_ns)
            self._starting.add(name)
            world.clock.after(
                world.process_start_ns,
                self._started,
                SimulatedWorker(world, name, device),
            )

    def _started(self, worker: SimulatedWorker) -> None:
        self._starting.discard(worker.name)
        world = self._world
        if not self.is_alive:
            world.machines.free(worker.name)
            world.recorder.stopped(worker.name, world.clock.now_ns)
            return
        world.workers[worker.name] = worker
        worker.attach()
