"""What the manager decides, function by function."""

import pytest

from jscale.cluster.decisions import (
    choose_leavers,
    choose_transfers,
    continues,
    lease_pages,
)
from jscale.cluster.records import TransferRecord, WorkerRecord
from jscale.core.ids import PlanId, WorkerId
from jscale.engine.config import EngineConfig
from jscale.plan.execution import ExecutionPipeline


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


def pipeline(blocks: str) -> ExecutionPipeline:
    """`w1 w1 w0`: who runs each block."""
    return ExecutionPipeline.of_workers([WorkerId(name) for name in blocks.split()])


def test_targets_are_dealt_out_evenly_to_the_sources_that_are_free() -> None:
    workers = {f"w{i}": worker(f"w{i}", 4 if i < 3 else 0) for i in range(8)}
    busy = TransferRecord(PlanId(1), WorkerId("w1"), frozenset({WorkerId("w7")}))
    assert choose_transfers(
        workers, [busy], num_blocks=4, num_launching=0, now_ns=0
    ) == [("w0", ("w3", "w5")), ("w2", ("w4", "w6"))]


@pytest.mark.parametrize(("now_s", "starts"), [(0, False), (2.9, False), (3, True)])
def test_targets_wait_for_those_on_the_way_but_not_for_ever(
    now_s: float, starts: bool
) -> None:
    workers = {"w0": worker("w0", 4), "w1": worker("w1", 0)}
    chosen = choose_transfers(
        workers, [], num_blocks=4, num_launching=1, now_ns=int(now_s * 1e9)
    )
    assert bool(chosen) == starts


def test_the_incomplete_leave_first_then_the_youngest() -> None:
    workers = {f"w{i}": worker(f"w{i}", 4 if i != 1 else 2) for i in range(4)}
    assert choose_leavers(workers, num_blocks=4, num_wanted=2) == ["w1", "w3"]
    assert choose_leavers(workers, num_blocks=4, num_wanted=9) == []


@pytest.mark.parametrize(
    ("newer", "older", "holds"),
    [
        ("w1 w1 w0 w0", "w1 w0 w0 w0", True),
        ("w1 w0 w0 w0", "w1 w1 w0 w0", False),
        ("w1 w1 w1 w1", "w1 w0 w0 w0", False),
        ("w1 w1 w2 w2", "w1 w0 w0 w0", False),
        ("w1 w1 w0 w1", "w1 w0 w0 w0", False),
        ("w1 w1 w0 w0", "w0 w0 w0 w0", False),
    ],
)
def test_a_recut_continues_only_where_the_second_stage_keeps_its_kv(
    newer: str, older: str, holds: bool
) -> None:
    assert continues(pipeline(newer), pipeline(older)) == holds


def test_leases_of_a_worker_never_exceed_its_pages() -> None:
    for num_pages in (16, 64, 128, 1000):
        engine = EngineConfig(num_pages=num_pages)
        local = lease_pages(engine, is_local=True)
        pipelined = lease_pages(engine, is_local=False)
        assert pipelined >= engine.pages_per_sequence
        assert local + pipelined <= num_pages
    assert local + 8 * pipelined <= num_pages
