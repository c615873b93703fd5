"""The moments of a run that are worth a picture. Pure."""

import bisect
import dataclasses
from collections.abc import Sequence

from jscale.core.ids import WorkerId
from jscale.core.units import NS_PER_MS, NS_PER_S
from jscale.simulation.results import SimulationResult, WorkerInterval

RISE_NS = 3 * NS_PER_S
"""How long a rise of load takes that is looked for."""

TOGETHER_NS = 500 * NS_PER_MS
"""Workers that are started within so long are one scale-out."""


@dataclasses.dataclass(frozen=True)
class ScaleOut:
    """Workers that were started together.

    Args:
      started_ns: when the first was.
      num_blocks: of the model.
      workers: for each, when it could compute with one more block, from `started_ns`.
    """

    started_ns: int
    num_blocks: int
    workers: Sequence[Sequence[int]]

    @property
    def duration_ns(self) -> int:
        """Until the last block."""
        return max((times[-1] for times in self.workers if times), default=0)


def sharpest_rise_ns(arrivals_ns: Sequence[int]) -> int:
    """The arrival from which on most more come in `RISE_NS` than came before it.

    Args:
      arrivals_ns: in order, one at least.
    """

    def rise(at_ns: int) -> int:
        index = bisect.bisect_left(arrivals_ns, at_ns)
        before = index - bisect.bisect_left(arrivals_ns, at_ns - RISE_NS)
        after = bisect.bisect_left(arrivals_ns, at_ns + RISE_NS) - index
        return after - before

    return max(arrivals_ns, key=rise)


def first_tokens_ns(result: SimulationResult) -> list[int]:
    """When clients had their first tokens, in order."""
    given = (record.first_token_ns for record in result.records)
    return sorted(at_ns for at_ns in given if at_ns is not None)


def largest_scale_out(result: SimulationResult) -> ScaleOut | None:
    """The scale-out of most workers, the first of equals; None if there was none."""
    started = sorted(
        (worker for worker in result.workers if worker.started_ns > 0),
        key=lambda worker: worker.started_ns,
    )
    largest: list[WorkerInterval] = []
    group: list[WorkerInterval] = []
    for worker in started:
        if group and worker.started_ns - group[0].started_ns > TOGETHER_NS:
            group = []
        group = [*group, worker]
        if len(group) > len(largest):
            largest = group
    if not largest:
        return None
    first_ns = largest[0].started_ns
    times: dict[WorkerId, list[int]] = {worker.worker: [] for worker in largest}
    for block in result.blocks:
        if block.worker in times:
            times[block.worker].append(block.at_ns - first_ns)
    num_blocks = max((block.block for block in result.blocks), default=0) + 1
    return ScaleOut(first_ns, num_blocks, [sorted(each) for each in times.values()])
