"""A comparison as a table for people, and the timelines of requests as CSV."""

import csv
import io
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jscale.core.errors import ConfigError
from jscale.core.units import NS_PER_S
from jscale.simulation.metrics import HOUR_S, Summary
from jscale.simulation.results import SimulationResult

Rows = Sequence[tuple[str, Summary]]
WIDTH = 120


def print_table(rows: Rows, title: str, price_per_hour: float) -> None:
    """Prints the table, in colour where the terminal has any."""
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(_table(rows, title, price_per_hour))


def table_text(rows: Rows, title: str, price_per_hour: float) -> str:
    """The table without colours."""
    text = io.StringIO()
    console = Console(file=text, width=WIDTH, color_system=None)
    console.print(_table(rows, title, price_per_hour))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def write_timelines(
    results: Mapping[str, SimulationResult], folder: pathlib.Path
) -> list[pathlib.Path]:
    """A CSV for each system: a line for each request, in seconds.

    Raises:
      ConfigError: the folder cannot be written.
    """
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, result in results.items():
            paths.append(folder / f"requests_{name}.csv")
            with paths[-1].open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(_timeline(result))
    except OSError as error:
        raise ConfigError(f"folder {folder}: {error.strerror}") from None
    return paths


COLUMNS = (
    ("TTFT", "P50"),
    ("TTFT", "P90"),
    ("TTFT", "P99"),
    ("P90", "×"),
    ("TPOT", "P90"),
    ("gap", "P99"),
    ("SLO", "%"),
    ("GPU", "h"),
    ("GPU", "± %"),
    ("cost", "$"),
    ("peak", ""),
    ("outs", ""),
    ("step", "s"),
    ("whole", "s"),
    ("lost", ""),
)


def _table(rows: Rows, title: str, price_per_hour: float) -> Table:
    table = Table(
        title=Text(title, style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        caption=Text(_caption(rows), style="dim"),
        caption_justify="left",
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("\nsystem", no_wrap=True)
    for above, below in COLUMNS:
        table.add_column(f"{above}\n{below}", justify="right", no_wrap=True)
    first = rows[0][1] if rows else None
    for name, summary in rows:
        assert first is not None
        style = "bold cyan" if summary is first else ""
        table.add_row(*_cells(name, summary, first, price_per_hour), style=style)
    return table


def _cells(
    name: str, summary: Summary, first: Summary, price_per_hour: float
) -> list[str]:
    is_first, has_scaled = summary is first, summary.num_scale_outs > 0
    return [
        name,
        _short(summary.ttft_s.p50),
        _short(summary.ttft_s.p90),
        _short(summary.ttft_s.p99),
        "" if is_first else _short(_ratio(summary.ttft_s.p90, first.ttft_s.p90)),
        _short(1e3 * summary.tpot_s.p90),
        _short(summary.gap_s.p99),
        f"{100 * summary.share_in_objective:.1f}",
        f"{summary.accelerator_s / HOUR_S:.2f}",
        "" if is_first else _more(summary.accelerator_s, first.accelerator_s),
        f"{summary.cost(price_per_hour):,.2f}",
        f"{summary.num_workers_max:,}",
        f"{summary.num_scale_outs:,}",
        _short(summary.serving_s.p50) if has_scaled else "",
        _short(summary.complete_s.p50) if has_scaled else "",
        f"{summary.num_failed:,}" if summary.num_failed else "",
    ]


def _short(value: float) -> str:
    """Three digits, or so: `0.054`, `1.24`, `85`; `–` for what is endless."""
    if not math.isfinite(value):
        return "–"
    if value >= 99.5:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def _ratio(value: float, of: float) -> float:
    return value / of if of else math.inf


def _more(value: float, of: float) -> str:
    """How many per cent more: `+18.1`."""
    return f"{100 * (value / of - 1):+.1f}" if of else "–"


def _caption(rows: Rows) -> str:
    if not rows:
        return ""
    return (
        "TTFT and gap (a request's longest wait between two tokens) in seconds, TPOT "
        "in ms. P90 × and GPU ± are against "
        f"{rows[0][0]}. SLO: requests within it. peak: workers at a time. outs: "
        "workers that were added. step, whole: median time "
        "from asking for one until it computes anything, and until it holds all blocks."
    )


def _timeline(result: SimulationResult) -> Iterator[Sequence[float | str]]:
    yield (
        "arrival_s",
        "prompt_tokens",
        "output_tokens",
        "first_token_s",
        "finished_s",
        "longest_gap_s",
        "handovers",
        "error",
    )
    for record in result.records:
        yield (
            record.arrival_ns / NS_PER_S,
            record.prompt_tokens,
            record.output_tokens,
            _maybe_s(record.first_token_ns),
            _maybe_s(record.finished_ns),
            record.gap_ns_max / NS_PER_S,
            record.num_handovers,
            record.error,
        )


def _maybe_s(at_ns: int | None) -> float | str:
    return "" if at_ns is None else at_ns / NS_PER_S
