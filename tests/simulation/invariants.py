"""What must hold of a simulated cluster after every event, and when it is at rest."""

from collections import Counter

from jscale.simulation.device import SimulatedDevice
from jscale.simulation.worker import SimulatedWorker
from jscale.simulation.world import World


def check_always(world: World) -> None:
    """Holds between any two events."""
    for worker in world.workers.values():
        if worker.compute is not None:
            check_blocks(worker, worker.compute)
            check_pages(worker.compute)
    check_sequences(world)


def check_blocks(worker: SimulatedWorker, device: SimulatedDevice) -> None:
    """No block is both missing and served."""
    for opened in device._pipelines.values():
        for stage in opened.spec.stages:
            if stage.worker == worker.name:
                blocks = range(stage.first_block, stage.first_block + stage.num_blocks)
                missing = set(blocks) - worker.blocks
                assert not missing, (worker.name, opened.spec.pipeline, missing)
                assert all(worker.store.is_complete(1 + block) for block in blocks)


def check_pages(device: SimulatedDevice) -> None:
    """No page is owned twice: by two pipelines, or by two sequences of one."""
    leases = {id(p.lease): p.lease for p in device._pipelines.values()}.values()
    leased = sum(lease.num_pages for lease in leases)
    assert leased + device._num_free_pages == device._config.num_pages
    users = Counter(id(p.lease) for p in device._pipelines.values())
    assert all(lease.num_users == users[id(lease)] for lease in leases)
    for opened in device._pipelines.values():
        if opened.head is None:
            continue
        scheduler = opened.head.scheduler
        owned = sum(progress.num_pages for progress in scheduler.running)
        assert owned + scheduler.num_free_pages == scheduler._num_pages
        assert scheduler.num_free_pages >= 0
        for progress in scheduler.running:
            needed = device._config.pages_for(progress.num_computed)
            assert progress.num_pages >= needed, progress
        assert all(not waiting.num_pages for waiting in scheduler.waiting)


def check_sequences(world: World) -> None:
    """Every sequence is on one replica at most: the one that its router thinks."""
    if not world.gateway.is_alive:
        return
    found: Counter[str] = Counter()
    live = world.gateway.router._live
    for worker in world.workers.values():
        if worker.compute is None:
            continue
        for opened in worker.compute._pipelines.values():
            attempts = opened.head._attempts if opened.head else {}
            for sequence, (gateway, attempt) in attempts.items():
                mine = live.get(sequence) if gateway == world.gateway.name else None
                if mine is not None and mine.attempt == attempt:
                    found[sequence] += 1
                    assert mine.replica is not None, mine
                    assert mine.replica.head == worker.name, (mine, worker.name)
    assert all(count == 1 for count in found.values()), found


def check_rest(world: World) -> None:
    """With no fault left, all that was asked for is done."""
    num_wanted = world.recorder.wanted[-1][1]
    num_wanted = min(num_wanted, world.machines.spec.num_devices)
    assert len(world.workers) == num_wanted, (list(world.workers), num_wanted)
    assert world.manager.state._multicasts.transfer is None
    for worker in world.workers.values():
        assert worker.is_attached, worker.name
        assert len(worker.blocks) == world.spec.num_blocks, worker.name
        assert worker.compute is not None
        opened = worker.compute._pipelines.values()
        assert [each.spec.is_local for each in opened] == [True], worker.name
        member = worker.transfers.member
        assert member is None or member.is_over, worker.name
    replicas = world.gateway._replicas.values()
    assert sorted(r.head for r in replicas) == sorted(world.workers)
    assert not world.gateway.numbers
