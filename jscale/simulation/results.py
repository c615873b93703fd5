"""What goes into a simulation from outside, and what comes out of it."""

import dataclasses
from collections.abc import Sequence

from jscale.core.errors import ConfigError
from jscale.core.ids import WorkerId


@dataclasses.dataclass(frozen=True)
class TraceRequest:
    """A request of a trace.

    Raises:
      ConfigError: it comes before the start, or has no token.
    """

    arrival_ns: int
    prompt_tokens: int
    output_tokens: int

    def __post_init__(self) -> None:
        if self.arrival_ns < 0:
            raise ConfigError(
                f"request at {self.arrival_ns} ns: give times of 0 or more"
            )
        if self.prompt_tokens < 1 or self.output_tokens < 1:
            raise ConfigError(
                f"request of {self.prompt_tokens} prompt and {self.output_tokens} "
                "output tokens: give at least one of each"
            )


@dataclasses.dataclass(frozen=True)
class RequestRecord:
    """What became of a request; times count from the start of the simulation.

    Attributes:
      first_token_ns: when the client had the first token; None: it never had one.
      finished_ns: when it had the last; None: it never had it.
      num_handovers: how often it went on at another replica.
      gap_ns_max: the longest time between two of its tokens.
      error: why it failed or was refused; empty if it did not.
    """

    arrival_ns: int
    prompt_tokens: int
    output_tokens: int
    first_token_ns: int | None
    finished_ns: int | None
    num_handovers: int = 0
    gap_ns_max: int = 0
    error: str = ""


@dataclasses.dataclass(frozen=True)
class WorkerInterval:
    """A worker's life: its device is paid for from start to end.

    Attributes:
      started_ns: the process was asked for.
      attached_ns: the manager knew it; None: never.
      serving_ns: it ran its first step of any replica; None: never.
      complete_ns: it held the whole model; None: never.
      ended_ns: the device was free again, or the simulation over.
      tier: from where most of the model came: `peers`, `host`, `disk`, `none`.
    """

    worker: WorkerId
    host: int
    num_accelerators: int
    started_ns: int
    ended_ns: int
    attached_ns: int | None = None
    serving_ns: int | None = None
    complete_ns: int | None = None
    tier: str = "none"


@dataclasses.dataclass(frozen=True)
class BlockArrival:
    """A worker can compute with a block from now on."""

    at_ns: int
    worker: WorkerId
    block: int


@dataclasses.dataclass(frozen=True)
class PipelineOpening:
    """A replica was open from here to there; None: to the end."""

    opened_ns: int
    closed_ns: int | None
    workers: tuple[WorkerId, ...]
    num_stages: int


@dataclasses.dataclass(frozen=True)
class SimulationResult:
    """All that came of a run; equal inputs give equal results.

    Attributes:
      records: one for each request, in the order of the trace.
      workers: one for each worker process, in the order of their start.
      blocks: in order of time.
      pipelines: in order of their opening.
      wanted: when how many workers were wanted: (ns, number), in order.
      tokens: tokens that clients were given in each `bin_ns` from 0 on.
      prefilled: prompt tokens that were computed in each bin, recomputed ones too.
      bin_ns: width of a bin.
      ended_ns: when nothing was left to happen.
      num_events: that the clock handled.
    """

    records: Sequence[RequestRecord]
    workers: Sequence[WorkerInterval]
    blocks: Sequence[BlockArrival]
    pipelines: Sequence[PipelineOpening]
    wanted: Sequence[tuple[int, int]]
    tokens: Sequence[float]
    prefilled: Sequence[float]
    bin_ns: int
    ended_ns: int
    num_events: int
