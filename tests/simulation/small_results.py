"""A run small enough to write down: two requests, three workers, one scale-out."""

from jscale.core.ids import WorkerId
from jscale.core.units import NS_PER_S
from jscale.simulation.results import (
    BlockArrival,
    RequestRecord,
    SimulationResult,
    WorkerInterval,
)


def in_ns(at_s):
    return None if at_s is None else round(at_s * NS_PER_S)


def record(arrival_s, first_s, finished_s, output=11, **others):
    times = in_ns(arrival_s), in_ns(first_s), in_ns(finished_s)
    return RequestRecord(times[0], 100, output, times[1], times[2], **others)


def worker(started_s, ended_s, serving_s=None, complete_s=None, *, name="", gpus=1):
    return WorkerInterval(
        WorkerId(name or f"w{started_s}"),
        0,
        gpus,
        in_ns(started_s),
        in_ns(ended_s),
        serving_ns=in_ns(serving_s),
        complete_ns=in_ns(complete_s),
    )


def arrival(at_s, name, block):
    return BlockArrival(in_ns(at_s), WorkerId(name), block)


def result(records=(), workers=(), tokens=(), blocks=()):
    return SimulationResult(
        records=records,
        workers=workers,
        blocks=blocks,
        pipelines=(),
        wanted=(),
        tokens=tokens,
        prefilled=(),
        bin_ns=NS_PER_S // 2,
        ended_ns=100 * NS_PER_S,
        num_events=0,
    )


def scale_out_run():
    """One worker is joined by two at second 2, which have two blocks by second 3."""
    return result(
        records=[record(0, 1, 4), record(2, 2.5, 3.75, num_handovers=1)],
        workers=[
            worker(0, 9, 0, 0, name="w0"),
            worker(2, 9, 2.25, 3, name="w1"),
            worker(2.1, 8, 2.5, 2.75, name="w2"),
        ],
        tokens=[0, 0, 1, 2, 4, 6, 6, 3],
        blocks=[
            arrival(2.25, "w1", 0),
            arrival(2.5, "w2", 1),
            arrival(2.75, "w2", 0),
            arrival(3, "w1", 1),
        ],
    )
