"""`load_trace`: requests from a name, a generator or a file."""

import dataclasses
import pathlib
import random
from collections.abc import Iterable, Sequence

from jscale.core.errors import ConfigError
from jscale.core.units import NS_PER_S
from jscale.simulation.generators import GENERATORS, generated_ns
from jscale.simulation.results import TraceRequest
from jscale.simulation.spec import spec_from_text
from jscale.simulation.token_lengths import AZURE_CODE, drawer
from jscale.simulation.trace_file import Arrival, Columns, read_arrivals

_LAMBDA_SCALE = AZURE_CODE.parents[1] / "lambda-scale"

NAMED_TRACES = {
    "azure-code": AZURE_CODE,
    "lambda-scale": _LAMBDA_SCALE / "trace_1_window_15250_17050.txt",
    "lambda-scale-0": _LAMBDA_SCALE / "trace_0.txt",
}
"""Traces that come along, by name; whose they are is in `SOURCE.txt` beside each."""


@dataclasses.dataclass(frozen=True)
class TraceOptions:
    """How a trace is read.

    Args:
      seed: of all that is drawn.
      rate_scale: 2: requests come twice as fast.
      start_s: what comes before is left out, and this moment becomes 0.
      end_s: what comes from then on is left out; None: nothing. Both count in the
        trace's own seconds, before `rate_scale`.
      lengths: from what lengths are drawn where the trace has none.
      columns: what a file's columns are called; None: as one of `KNOWN_COLUMNS`.

    Raises:
      ConfigError: the rate is not over 0, or the window is empty.
    """

    seed: int = 0
    rate_scale: float = 1.0
    start_s: float = 0.0
    end_s: float | None = None
    lengths: str = "chat"
    columns: Columns | None = None

    def __post_init__(self) -> None:
        if not 0 < self.rate_scale < float("inf"):
            raise ConfigError(f"rate_scale {self.rate_scale}: give a factor over 0")
        if self.start_s < 0 or (self.end_s is not None and self.end_s <= self.start_s):
            raise ConfigError(
                f"window from {self.start_s} s to {self.end_s} s: give a start of 0 or "
                "more and an end after it"
            )


def load_trace(
    source: str | Iterable[TraceRequest], options: TraceOptions | None = None
) -> tuple[TraceRequest, ...]:
    """The requests of a trace, in order of arrival.

    Args:
      source: `azure-code`, `lambda-scale` or `lambda-scale-0`; a generator with its
        numbers (`generators`); a path of a `.csv` or `.txt`; or requests.
      options: how it is read.

    Raises:
      ConfigError: there is no such trace, it has a mistake, or nothing is left of it.
    """
    options = options or TraceOptions()
    rng = random.Random(options.seed)
    if isinstance(source, str):
        arrivals = _arrivals(source, options, rng)
    else:
        arrivals = [
            Arrival(r.arrival_ns, r.prompt_tokens, r.output_tokens) for r in source
        ]
    return _finish(
        str(source) if isinstance(source, str) else "requests", arrivals, options, rng
    )


def _arrivals(
    source: str, options: TraceOptions, rng: random.Random
) -> Sequence[Arrival]:
    if source in NAMED_TRACES:
        return read_arrivals(NAMED_TRACES[source])
    name = source.partition(":")[0]
    if name in GENERATORS:
        return [Arrival(at_ns) for at_ns in generated_ns(spec_from_text(source), rng)]
    if "/" in source or source.endswith((".csv", ".txt", ".gz")):
        return read_arrivals(pathlib.Path(source), options.columns)
    raise ConfigError(
        f"trace {source!r}: choose one of {', '.join(NAMED_TRACES)}, a generator "
        f"({', '.join(GENERATORS)}) with its numbers, like poisson:rate=5,seconds=600, "
        "or a path of a .csv"
    )


def _finish(
    name: str, arrivals: Sequence[Arrival], options: TraceOptions, rng: random.Random
) -> tuple[TraceRequest, ...]:
    """Cuts the window, draws lengths, scales the rate."""
    draw = drawer(options.lengths)
    start_ns = round(options.start_s * NS_PER_S)
    end_ns = None if options.end_s is None else round(options.end_s * NS_PER_S)
    requests = []
    for arrival in arrivals:
        drawn = draw(rng) if arrival.prompt_tokens is None else (0, 0)
        if arrival.at_ns < start_ns or (end_ns is not None and arrival.at_ns >= end_ns):
            continue
        requests.append(
            TraceRequest(
                arrival_ns=round((arrival.at_ns - start_ns) / options.rate_scale),
                prompt_tokens=arrival.prompt_tokens or drawn[0],
                output_tokens=arrival.output_tokens or drawn[1],
            )
        )
    if not requests:
        end = "its end" if options.end_s is None else f"{options.end_s:g} s"
        raise ConfigError(
            f"trace {name}: nobody comes from {options.start_s:g} s to {end}: "
            "give another window"
        )
    return tuple(requests)
