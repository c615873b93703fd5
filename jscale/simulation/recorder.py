"""What happens in a simulation, written down for its result."""

import dataclasses

from jscale.cluster.gateway_messages import Replica
from jscale.core.ids import PipelineId, WorkerId
from jscale.core.units import NS_PER_MS
from jscale.simulation.results import (
    BlockArrival,
    PipelineOpening,
    RequestRecord,
    SimulationResult,
    TraceRequest,
    WorkerInterval,
)

BIN_NS = 100 * NS_PER_MS
"""How finely tokens are counted."""


class Recorder:
    """Owns the records of a run."""

    def __init__(self, trace: list[TraceRequest], num_accelerators: int) -> None:
        self._num_accelerators = num_accelerators
        self.requests = [
            RequestRecord(r.arrival_ns, r.prompt_tokens, r.output_tokens, None, None)
            for r in trace
        ]
        self._last_ns: dict[int, int] = {}
        self._gap_ns: dict[int, int] = {}
        self._handovers: dict[int, int] = {}
        self._first_ns: dict[int, int] = {}
        self.num_ended = 0
        self._workers: list[WorkerInterval] = []
        self._index_of: dict[WorkerId, int] = {}
        self.blocks: list[BlockArrival] = []
        self.pipelines: dict[PipelineId, PipelineOpening] = {}
        self.wanted: list[tuple[int, int]] = []
        self._tokens: dict[int, float] = {}
        self._prefilled: dict[int, float] = {}

    # --- requests ----------------------------------------------------------------

    def gave(self, number: int, count: int, from_ns: int, to_ns: int) -> None:
        """A client was given tokens, evenly over the time, the last at its end."""
        each_ns = (to_ns - from_ns) // count
        if number not in self._first_ns:
            self._first_ns[number] = to_ns - each_ns * (count - 1)
        else:
            first_ns = to_ns - each_ns * (count - 1)
            gap_ns = max(first_ns - self._last_ns[number], each_ns if count > 1 else 0)
            self._gap_ns[number] = max(self._gap_ns.get(number, 0), gap_ns)
        self._last_ns[number] = to_ns
        _spread(self._tokens, count, from_ns, to_ns)

    def handed_over(self, number: int) -> None:
        """A request goes on elsewhere."""
        self._handovers[number] = self._handovers.get(number, 0) + 1

    def ended(self, number: int, now_ns: int, error: str = "") -> None:
        """A request is complete, or failed."""
        self.num_ended += 1
        self._last_ns.pop(number, None)
        self.requests[number] = dataclasses.replace(
            self.requests[number],
            first_token_ns=self._first_ns.pop(number, None),
            finished_ns=None if error else now_ns,
            num_handovers=self._handovers.pop(number, 0),
            gap_ns_max=self._gap_ns.pop(number, 0),
            error=error,
        )

    # --- workers -----------------------------------------------------------------

    def started(self, worker: WorkerId, host: int, now_ns: int) -> None:
        """A device is taken. Names may come again after a manager's restart."""
        self._index_of[worker] = len(self._workers)
        self._workers.append(
            WorkerInterval(worker, host, self._num_accelerators, now_ns, -1)
        )

    def note(self, worker: WorkerId, **changes: object) -> None:
        """Something of a worker is known now; what was known before stays."""
        index = self._index_of[worker]
        interval = self._workers[index]
        news = {
            name: value
            for name, value in changes.items()
            if name == "tier" or getattr(interval, name) is None
        }
        if news:
            self._workers[index] = dataclasses.replace(interval, **news)  # type: ignore[arg-type]

    def stopped(self, worker: WorkerId, now_ns: int) -> None:
        """Its device is free."""
        index = self._index_of[worker]
        ended = dataclasses.replace(self._workers[index], ended_ns=now_ns)
        self._workers[index] = ended

    def opened(self, replica: Replica, now_ns: int) -> None:
        """A replica may be sent to."""
        workers = replica.workers
        opening = PipelineOpening(now_ns, None, workers, len(workers))
        self.pipelines.setdefault(replica.pipeline, opening)

    def closed(self, pipeline: PipelineId, now_ns: int) -> None:
        """A replica may not be sent to any more."""
        opening = self.pipelines.get(pipeline)
        if opening is not None and opening.closed_ns is None:
            closed = dataclasses.replace(opening, closed_ns=now_ns)
            self.pipelines[pipeline] = closed

    def prefilled(self, num_tokens: int, from_ns: int, to_ns: int) -> None:
        """Prompt tokens were computed."""
        _spread(self._prefilled, num_tokens, from_ns, to_ns)

    # --- the result --------------------------------------------------------------

    def result(self, now_ns: int, num_events: int) -> SimulationResult:
        """All of it."""
        for number, first_ns in self._first_ns.items():
            record = self.requests[number]
            self.requests[number] = dataclasses.replace(record, first_token_ns=first_ns)
        workers = [
            each if each.ended_ns >= 0 else dataclasses.replace(each, ended_ns=now_ns)
            for each in self._workers
        ]
        return SimulationResult(
            records=tuple(self.requests),
            workers=tuple(workers),
            blocks=tuple(self.blocks),
            pipelines=tuple(self.pipelines.values()),
            wanted=tuple(self.wanted),
            tokens=_bins(self._tokens),
            prefilled=_bins(self._prefilled),
            bin_ns=BIN_NS,
            ended_ns=now_ns,
            num_events=num_events,
        )


def _spread(bins: dict[int, float], count: int, from_ns: int, to_ns: int) -> None:
    """Adds a count to bins in proportion to the time that falls into each."""
    first, last = from_ns // BIN_NS, to_ns // BIN_NS
    if first == last or to_ns <= from_ns:
        bins[last] = bins.get(last, 0) + count
        return
    for index in range(first, last + 1):
        start_ns = max(from_ns, index * BIN_NS)
        end_ns = min(to_ns, (index + 1) * BIN_NS)
        share = (end_ns - start_ns) / (to_ns - from_ns)
        if share > 0:
            bins[index] = bins.get(index, 0) + count * share


def _bins(bins: dict[int, float]) -> tuple[float, ...]:
    return tuple(bins.get(index, 0) for index in range(max(bins, default=-1) + 1))
