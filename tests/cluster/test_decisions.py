"""What the manager decides, function by function."""

import random

import msgspec

from jscale.cluster.decisions import (
    choose_disk_loader,
    choose_leavers,
    choose_local_loaders,
    lease_pages,
)
from jscale.cluster.records import WorkerRecord
from jscale.cluster.roster import Roster
from jscale.core.ids import PlanId, WorkerId
from jscale.engine.config import EngineConfig


def worker(name: str, num_blocks: int, attached_ns: int = 0) -> WorkerRecord:
    return WorkerRecord(
        worker=WorkerId(name),
        data_address=f"mem://{name}",
        serve_address=f"{name}:1",
        attached_ns=attached_ns,
        blocks=frozenset(range(num_blocks)),
        bundle=None,
        has_executables=True,
        has_all_executables=True,
        can_load_from_disk=True,
    )


def roster(*records: WorkerRecord) -> Roster:
    made = Roster(num_blocks=4)
    for record in records:
        made.put(record)
    return made


def test_the_incomplete_leave_first_then_the_youngest() -> None:
    workers = roster(*(worker(f"w{i}", 4 if i != 1 else 2) for i in range(4)))
    assert choose_leavers(workers, num_excess=2) == ["w1", "w3"]
    assert choose_leavers(workers, num_excess=0) == []


def test_a_copy_of_its_own_is_read_where_that_is_faster_than_the_link() -> None:
    link = msgspec.structs.replace(worker("w0", 0), link_bytes_per_s=1e9)
    disk = msgspec.structs.replace(worker("w1", 0), local_copy_bytes_per_s=2e9)
    both = msgspec.structs.replace(link, worker="w2", local_copy_bytes_per_s=2e9)
    slow = msgspec.structs.replace(link, worker="w3", local_copy_bytes_per_s=5e8)
    workers = roster(link, disk, both, slow)
    assert choose_local_loaders(workers, 0, all_of_them=False) == ["w1", "w2"]
    assert choose_local_loaders(workers, 0, all_of_them=True) == [*workers]


def test_who_must_read_is_who_holds_most_then_who_reads_fastest() -> None:
    slow = worker("w0", 1)
    fast = msgspec.structs.replace(slow, worker="w1", local_copy_bytes_per_s=5e9)
    most = worker("w2", 2)
    assert choose_disk_loader(roster(slow, fast), 0) == "w1"
    assert choose_disk_loader(roster(slow, fast, most), 0) == "w2"
    no_disk = msgspec.structs.replace(slow, can_load_from_disk=False)
    assert choose_disk_loader(roster(no_disk), 0) is None
    in_memory = msgspec.structs.replace(fast, can_load_from_disk=False)
    assert choose_disk_loader(roster(no_disk, in_memory), 0) == "w1"
    failed = msgspec.structs.replace(fast, no_read_before_ns=5)
    assert choose_disk_loader(roster(slow, failed), 4) == "w0"
    assert choose_disk_loader(roster(slow, failed), 5) == "w1"


def test_the_roster_keeps_every_set_as_if_it_were_sought() -> None:
    rng = random.Random(5)
    workers = Roster(num_blocks=4)
    for _ in range(2000):
        name = WorkerId(f"w{rng.randrange(6)}")
        if rng.random() < 0.1:
            workers.remove(name)
        else:
            record = worker(name, rng.randrange(5))
            changes = {
                field: rng.random() < 0.3
                for field in ("is_loading", "is_leaving", "has_all_executables")
            }
            plan = PlanId(1) if rng.random() < 0.3 else None
            workers.put(msgspec.structs.replace(record, plan=plan, **changes))
        complete = {w for w, r in workers.items() if len(r.blocks) == 4}
        staying = {w for w, r in workers.items() if not r.is_leaving}
        assert set(workers.complete) == complete
        assert set(workers.leaving) == set(workers) - staying
        assert workers.num_staying == len(staying)
        assert set(workers.senders) == {
            w for w in complete & staying if workers[w].has_all_executables
        }
        assert set(workers.waiting) == {
            w
            for w in staying - complete
            if workers[w].plan is None and not workers[w].is_loading
        }


def test_leases_of_a_worker_never_exceed_its_pages() -> None:
    for num_pages in (16, 64, 128, 1000):
        engine = EngineConfig(num_pages=num_pages)
        local = lease_pages(engine, is_local=True)
        pipelined = lease_pages(engine, is_local=False)
        assert pipelined >= engine.pages_per_sequence
        assert local + pipelined <= num_pages
    assert local + 8 * pipelined <= num_pages
