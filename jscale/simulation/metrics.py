"""What a run comes to, as the field counts it. Pure.

TTFT is from arrival to the first token, TPOT (finish − first token) / (outputs − 1), a
gap the time between two tokens, goodput the requests that keep their objective. A
request that got no token waited for ever: it counts as endless in every percentile, so
that nobody gains by failing.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from jscale.core.errors import ConfigError
from jscale.core.units import NS_PER_S
from jscale.simulation.results import RequestRecord, SimulationResult, WorkerInterval

HOUR_S = 3600.0


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a request should see (its SLO), in seconds.

    Raises:
      ConfigError: a time is not over 0.
    """

    ttft_s: float = 1.0
    tpot_s: float = 0.2

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not value > 0:
                raise ConfigError(f"objective {name} {value}: give seconds over 0")

    def is_kept(self, record: RequestRecord) -> bool:
        """Whether the request had its first and its other tokens in time."""
        return ttft_s(record) <= self.ttft_s and tpot_s(record) <= self.tpot_s


@dataclasses.dataclass(frozen=True)
class Spread:
    """Percentiles by nearest rank; endless where requests got nothing, 0 for none."""

    mean: float
    p50: float
    p90: float
    p99: float
    largest: float


@dataclasses.dataclass(frozen=True)
class Summary:
    """One system's run in numbers.

    Attributes:
      num_requests: of the trace.
      num_failed: that did not get all their tokens.
      ttft_s: over all requests.
      tpot_s: over those with two tokens or more.
      gap_s: the longest time between two tokens of each request.
      share_in_objective: of all requests, 0 to 1.
      goodput_per_s: requests that kept their objective, a second of the run.
      tokens_per_s: generated, a second of the run.
      accelerator_s: time that accelerators were held: workers' lives × accelerators.
      num_workers_max: at the same time.
      num_scale_outs: workers that were started after the beginning.
      serving_s: from asking for such a worker to its first step, of any replica; of
        those that had one.
      complete_s: from asking for it to its holding the whole model; of those that did.
      num_handovers: of all requests together.
      duration_s: from the beginning to the last token.
    """

    num_requests: int
    num_failed: int
    ttft_s: Spread
    tpot_s: Spread
    gap_s: Spread
    share_in_objective: float
    goodput_per_s: float
    tokens_per_s: float
    accelerator_s: float
    num_workers_max: int
    num_scale_outs: int
    serving_s: Spread
    complete_s: Spread
    num_handovers: int
    duration_s: float

    def cost(self, price_per_hour: float) -> float:
        """What the accelerators cost, given the price of one for an hour."""
        return self.accelerator_s / HOUR_S * price_per_hour


def summarise(result: SimulationResult, objective: Objective | None = None) -> Summary:
    """The numbers of a run. O(requests · log requests)."""
    objective = objective or Objective()
    records = result.records
    started = [worker for worker in result.workers if worker.started_ns > 0]
    duration_s = max(duration_ns(result), 1) / NS_PER_S
    num_kept = sum(objective.is_kept(record) for record in records)
    return Summary(
        num_requests=len(records),
        num_failed=sum(record.finished_ns is None for record in records),
        ttft_s=spread(map(ttft_s, records)),
        tpot_s=spread(tpot_s(r) for r in records if r.output_tokens > 1),
        gap_s=spread(r.gap_ns_max / NS_PER_S for r in records),
        share_in_objective=num_kept / len(records) if records else 0.0,
        goodput_per_s=num_kept / duration_s,
        tokens_per_s=sum(result.tokens) / duration_s,
        accelerator_s=accelerator_s(result.workers),
        num_workers_max=max((count for _, count in fleet(result.workers)), default=0),
        num_scale_outs=len(started),
        serving_s=_since_start_s((w.started_ns, w.serving_ns) for w in started),
        complete_s=_since_start_s((w.started_ns, w.complete_ns) for w in started),
        num_handovers=sum(record.num_handovers for record in records),
        duration_s=duration_s,
    )


def ttft_s(record: RequestRecord) -> float:
    """Seconds until the first token; endless if there was none."""
    if record.first_token_ns is None:
        return math.inf
    return (record.first_token_ns - record.arrival_ns) / NS_PER_S


def tpot_s(record: RequestRecord) -> float:
    """Seconds for each token after the first; endless if the request failed."""
    if record.finished_ns is None or record.first_token_ns is None:
        return math.inf
    if record.output_tokens < 2:
        return 0.0
    taken_ns = record.finished_ns - record.first_token_ns
    return taken_ns / (record.output_tokens - 1) / NS_PER_S


def spread(values: Iterable[float]) -> Spread:
    """How values spread: mean, and percentiles by nearest rank.

    >>> spread([4.0, 1.0, 3.0, 2.0]).p50
    2.0
    """
    ordered = sorted(values)
    if not ordered:
        return Spread(0.0, 0.0, 0.0, 0.0, 0.0)
    return Spread(
        mean=math.fsum(ordered) / len(ordered),
        p50=percentile(ordered, 0.50),
        p90=percentile(ordered, 0.90),
        p99=percentile(ordered, 0.99),
        largest=ordered[-1],
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The least value that `share` (over 0, at most 1) of all do not exceed.

    Args:
      ordered: in ascending order, one at least.
      share: of the values.
    """
    return ordered[math.ceil(share * len(ordered) - 1e-9) - 1]


def accelerator_s(workers: Iterable[WorkerInterval]) -> float:
    """Seconds that accelerators were held, all together."""
    return sum(
        (worker.ended_ns - worker.started_ns) * worker.num_accelerators
        for worker in workers
    ) / float(NS_PER_S)


def fleet(workers: Iterable[WorkerInterval]) -> list[tuple[int, int]]:
    """How many workers there are from when on: (ns, number), in order, changes only."""
    changes: dict[int, int] = {}
    for worker in workers:
        changes[worker.started_ns] = changes.get(worker.started_ns, 0) + 1
        changes[worker.ended_ns] = changes.get(worker.ended_ns, 0) - 1
    count, steps = 0, []
    for at_ns in sorted(changes):
        if changes[at_ns]:
            count += changes[at_ns]
            steps.append((at_ns, count))
    return steps


def duration_ns(result: SimulationResult) -> int:
    """From the beginning to the last token, or the last arrival if none came."""
    ends = (record.finished_ns or record.arrival_ns for record in result.records)
    return max(ends, default=0)


def _since_start_s(times_ns: Iterable[tuple[int, int | None]]) -> Spread:
    """Of workers that came so far: the others were let go before."""
    return spread(
        (at_ns - started_ns) / NS_PER_S
        for started_ns, at_ns in times_ns
        if at_ns is not None
    )
