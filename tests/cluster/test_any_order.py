"""Manager and workers, whatever happens in whatever order: in the end all serve.

The state machines are the real ones; stores, disks and peers are a few sets. Messages
and events wait in queues, and chance says whose turn it is.
"""

import collections
import random

import pytest

from jscale.cluster import events, messages
from jscale.cluster import worker_effects as effects
from jscale.cluster import worker_events as told
from jscale.cluster.effects import TellWorker
from jscale.cluster.manager_state import ManagerState
from jscale.cluster.worker_state import WorkerState
from jscale.core.ids import WorkerId
from jscale.engine.config import EngineConfig
from jscale.store.manifest import manifest_fingerprint

NS_PER_MS = 1_000_000
WORKERS_MAX = 6
FAULTY_STEPS, CALM_STEPS = 1500, 20_000


class Worker:
    """One worker's state machine, and a dumb world around it."""

    def __init__(self, cluster, name, *, has_disk):
        rng = cluster.rng
        self.cluster, self.name, self.has_disk = cluster, WorkerId(name), has_disk
        self.has_copy = rng.random() < 0.3
        self.compiles = messages.Bundle(rng.choice("abc") * 64, 4096, "f")
        self.commands, self.reports = collections.deque(), collections.deque()
        self.events, self.to_load = collections.deque(), collections.deque()
        self.filled, self.verified = set(), set()
        self.num_reads = 0
        self.plan, self.is_over = None, False
        self.region, self.is_region_whole = None, False
        self.is_alive = True
        fingerprints = (manifest_fingerprint(b""),) if self.has_copy else ()
        self.state = WorkerState(
            messages.WorkerHello(
                worker=self.name,
                data_address=f"mem://{name}",
                serve_address=f"{name}:1",
                can_load_from_disk=has_disk,
                in_host_memory=fingerprints,
                host_memory_bytes_per_s=5e9 if self.has_copy else 0,
                link_bytes_per_s=rng.choice((0.0, 1e9, 1e10)),
            )
        )
        self.step(told.ManagerAttached())

    @property
    def is_whole(self):
        return len(self.filled) == self.cluster.num_blocks

    def chance(self, share):
        """A fault, while there are any."""
        return self.cluster.is_faulty and self.cluster.rng.random() < share

    def step(self, event):
        if event == told.RegionFilled(0) and not self.is_region_whole:
            return  # See `is_outdated`.
        for effect in self.state.step(event):
            self.carry_out(effect)

    def carry_out(self, effect):
        match effect:
            case effects.Report(report):
                self.reports.append(report)
            case effects.ReadFromDisk():
                self.plan = None
                self.num_reads += 1
            case effects.CompileExecutables() | effects.LoadExecutables():
                self.to_load.append(effect)
            case effects.PlaceExecutables():
                self.plan = None
                self.region, self.is_region_whole = self.compiles, True
            case effects.StartMulticast(command):
                self.plan, self.is_over = command, False
                if command.bundle != self.region:
                    self.region, self.is_region_whole = command.bundle, False
            case effects.StopMulticast(plan):
                if self.plan is not None and self.plan.plan == plan:
                    self.plan = None
            case effects.VerifyBlock(block):
                if self.chance(0.03):
                    self.filled.discard(block)
                    self.events.append(told.RegionCorrupt(block + 1, "damaged"))
                else:
                    self.verified.add(block)
                    self.events.append(told.BlockPublished(block))
            case effects.OpenStages(spec):
                self.events.append(told.StagesOpened(spec.pipeline))
            case effects.CloseStages(pipeline, reason):
                self.events.append(told.StagesClosed(pipeline, reason))
            case effects.Exit(reason, failed):
                assert not failed, reason
                self.is_alive = False

    def act(self):
        """The next thing of one kind, if there is one."""
        match self.cluster.rng.randrange(5):
            case 0 if self.events:
                self.step(self.events.popleft())
            case 1 if self.commands:
                self.step(told.CommandArrived(self.commands.popleft()))
            case 2 if self.num_reads:
                self.read()
            case 3 if self.to_load:
                self.load(self.to_load.popleft())
            case 4 if self.plan is not None and not self.is_over:
                self.receive()

    def read(self):
        missing = set(range(self.cluster.num_blocks)) - self.filled
        if not missing:
            self.num_reads -= 1
        elif not (self.has_disk or self.has_copy) or self.chance(0.1):
            self.num_reads -= 1
            self.has_copy = self.has_copy and self.cluster.rng.random() < 0.5
            self.events.append(told.DiskLoadFailed("unreadable"))
        else:
            self.fill(self.cluster.rng.choice(sorted(missing)))

    def load(self, effect):
        if isinstance(effect, effects.CompileExecutables):
            bundle = self.compiles if self.cluster.ships_executables else None
            event = told.ExecutablesLoaded("compiled", 1.0, True, bundle)
        elif (self.region, self.is_region_whole) != (effect.bundle, True):
            return
        elif self.chance(0.1):
            event = told.ExecutablesMismatched("jaxlib is another")
        elif self.chance(0.1):
            self.is_region_whole = False
            event = told.RegionCorrupt(0, "damaged")
        else:
            event = told.ExecutablesLoaded("received", 1.0, True, effect.bundle)
        self.events.append(event)

    def fill(self, block):
        self.filled.add(block)
        self.events.append(told.RegionFilled(block + 1))

    def receive(self):
        """What the plan brings next, or that its part is over."""
        plan = self.plan
        is_source = self.name in {source.worker for source in plan.sources}
        lacks = not is_source or self.name in plan.lacking
        lacks = lacks and plan.bundle is not None and not self.is_region_whole
        peers = self.cluster.peers_of(self)
        if lacks and any(
            (p.region, p.is_region_whole) == (plan.bundle, True) for p in peers
        ):
            self.is_region_whole = True
            self.events.append(told.RegionFilled(0))
            return
        there = set().union(*(peer.filled for peer in peers)) - self.filled
        if there and not is_source:
            self.fill(self.cluster.rng.choice(sorted(there)))
            return
        num_missing = self.cluster.num_blocks - len(self.filled) + lacks
        gives_up = 0.02 if peers or (is_source and self.num_reads) else 0.2
        if self.cluster.rng.random() < (gives_up if num_missing else 0.5):
            self.is_over = True
            self.events.append(told.TransferOver(plan.plan, num_missing))


class Cluster:
    """A manager and its workers, who come, go and fail for some time."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.num_blocks = self.rng.choice((1, 2, 4))
        self.ships_executables = self.rng.random() < 0.8
        self.is_faulty = True
        self.now_ns = 0
        self.workers = {}
        self.num_started = 0
        spec = messages.ModelSpec(
            model_name="toy",
            manifest=b"",
            engine=EngineConfig(),
            chunk_size_bytes=4096,
            block_sizes_bytes=(8192,) * self.num_blocks,
        )
        self.manager = ManagerState(spec, model_path="/model", num_workers=None)

    def add(self, *, has_disk):
        name = f"w{self.num_started}"
        self.num_started += 1
        self.workers[name] = Worker(self, name, has_disk=has_disk)

    def lose(self, name):
        self.workers.pop(name).is_alive = False
        self.tell(events.WorkerDetached(name))

    def peers_of(self, worker):
        """Who takes part in its plan by now."""
        members = (self.workers.get(each.worker) for each in worker.plan.members)
        return [
            member
            for member in members
            if member not in (None, worker)
            and member.plan is not None
            and member.plan.plan == worker.plan.plan
        ]

    def tell(self, event):
        for effect in self.manager.step(event, self.now_ns):
            if isinstance(effect, TellWorker) and effect.worker in self.workers:
                self.workers[effect.worker].commands.append(effect.command)

    def disturb(self):
        what = self.rng.random()
        name = self.rng.choice(sorted(self.workers))
        if what < 0.02 and len(self.workers) < WORKERS_MAX:
            self.add(has_disk=self.rng.random() < 0.7)
        elif what < 0.03 and len(self.workers) > 1:
            self.lose(name)
        elif what < 0.035 and len(self.workers) > 2:
            self.workers[name].step(told.StopRequested())

    def go_on(self):
        """Somebody's turn."""
        self.now_ns += self.rng.choice((0, 1, 20)) * NS_PER_MS
        if self.rng.random() < 0.1:
            self.tell(events.Ticked())
        worker = self.workers[self.rng.choice(sorted(self.workers))]
        for _ in range(4):
            if worker.is_alive:
                worker.act()
        while worker.reports and self.rng.random() < 0.7:
            report = worker.reports.popleft()
            if isinstance(report, messages.WorkerHello):
                self.tell(events.WorkerAttached(report))
            else:
                self.tell(events.WorkerReported(worker.name, report))
        if not worker.is_alive:
            self.lose(worker.name)
        if not self.workers:
            self.add(has_disk=True)

    def is_settled(self):
        return all(
            len(worker.verified) == self.num_blocks
            and worker.state._executables.are_complete
            and not (worker.events or worker.commands or worker.reports)
            for worker in self.workers.values()
        )


@pytest.mark.parametrize("seed", range(60))
def test_whoever_stays_has_the_model_in_the_end_and_the_manager_knows(seed):
    cluster = Cluster(seed)
    cluster.add(has_disk=True)
    for _ in range(FAULTY_STEPS):
        cluster.disturb()
        cluster.go_on()
    cluster.is_faulty = False
    cluster.add(has_disk=True)
    for _ in range(CALM_STEPS):
        cluster.go_on()
        if cluster.is_settled():
            break
    assert cluster.is_settled()
    for name, worker in cluster.workers.items():
        record = cluster.manager._roster[name]
        assert record.has_all_executables
        assert record.bundle == worker.state._executables.bundle
        if record.bundle is not None:
            assert (worker.region, worker.is_region_whole) == (record.bundle, True)
