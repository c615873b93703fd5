"""Charts of a comparison: waiting, workers over time, the ramp after a burst, blocks.

Matplotlib is imported when something is drawn: it is no dependency of jscale.
"""

import bisect
import importlib
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jscale.core.errors import ConfigError
from jscale.core.units import NS_PER_S
from jscale.simulation import metrics, moments
from jscale.simulation.results import SimulationResult

Results = Mapping[str, SimulationResult]

INK = "#1f2937"
MUTED = "#9ca3af"
GRID = "#e5e7eb"
FIRST = "#2563eb"
OTHERS = (
    "#ea580c",
    "#059669",
    "#9333ea",
    "#ca8a04",
    "#dc2626",
    "#0891b2",
    "#be185d",
    "#65a30d",
    "#6b7280",
)
"""The first system's colour, and those of the others in turn."""

BEFORE_S, AFTER_S = 2, 12
"""What the ramp shows, from the rise of load on."""

SMOOTHED_S = 0.5
"""Over how long tokens/s are averaged."""

STYLE = {
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 20,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.color": GRID,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def draw(results: Results, folder: pathlib.Path, title: str) -> list[pathlib.Path]:
    """Writes the charts as PNGs into a folder, and returns their paths.

    Args:
      results: by the name of the system; the first is drawn to stand out.
      folder: made if it is not there.
      title: what was simulated.

    Raises:
      ConfigError: matplotlib is not installed, or the folder cannot be written.
    """
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError:
        raise ConfigError(
            "plots need matplotlib, which is not installed: pip install 'jscale[bench]'"
        ) from None
    matplotlib.use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    charts = {
        "ttft.png": _draw_ttft,
        "workers.png": _draw_workers,
        "ramp.png": _draw_ramp,
        "blocks.png": _draw_blocks,
    }
    paths = []
    with matplotlib.rc_context(STYLE):
        for name, chart in charts.items():
            figure = chart(pyplot, results, title)
            if figure is not None:
                paths.append(_save(figure, folder / name))
                pyplot.close(figure)
    return paths


def _save(figure: Any, path: pathlib.Path) -> pathlib.Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise ConfigError(f"folder {path.parent}: {error.strerror}") from None
    return path


def _draw_ttft(pyplot: Any, results: Results, title: str) -> Any:
    """How many requests had their first token by when."""
    figure, axes = pyplot.subplots(figsize=(8, 4.6))
    for order, (name, result) in enumerate(results.items()):
        waited = sorted(map(metrics.ttft_s, result.records))
        shares = [(index + 1) / len(waited) for index in range(len(waited))]
        line = _line(order, len(results))
        axes.step(waited, shares, where="post", label=name, **line)
    axes.set_xscale("log")
    axes.set_xlabel("seconds until the first token")
    axes.set_ylim(0, 1.005)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.axhline(0.9, color=MUTED, linewidth=0.8, linestyle=":")
    axes.grid(visible=True, axis="x", which="major")
    _title(axes, "Requests that have their first token", title)
    figure.legend(loc="outside right center")
    return figure


def _draw_workers(pyplot: Any, results: Results, title: str) -> Any:
    """The workers of each system, one below the other, under the load."""
    num_rows = len(results) + 1
    figure, rows = pyplot.subplots(
        num_rows, figsize=(9, 1.2 + 0.72 * num_rows), sharex=True, squeeze=False
    )
    end_s = max(map(metrics.duration_ns, results.values())) / NS_PER_S
    load, *others = rows[:, 0]
    _draw_load(load, next(iter(results.values())), end_s)
    _title(load, "Workers over time", title)
    most = max(_most(result) for result in results.values())
    for order, (axes, name) in enumerate(zip(others, results, strict=True)):
        steps = metrics.fleet(results[name].workers)
        axes.fill_between(
            [*(at_ns / NS_PER_S for at_ns, _ in steps), end_s],
            [*(count for _, count in steps), steps[-1][1] if steps else 0],
            step="post",
            color=_colour(order),
            alpha=0.85,
            linewidth=0,
        )
        axes.set_ylim(0, most * 1.08)
        hours = metrics.accelerator_s(results[name].workers) / metrics.HOUR_S
        _name(axes, f"{name}\n{hours:.2f} GPU h")
    others[-1].set_xlabel("seconds")
    others[-1].set_xlim(0, end_s)
    return figure


def _draw_load(axes: Any, result: SimulationResult, end_s: float) -> None:
    width_s = max(end_s / 300, 1e-3)
    counts = [0] * (int(end_s / width_s) + 1)
    for record in result.records:
        counts[int(record.arrival_ns / NS_PER_S / width_s)] += 1
    axes.fill_between(
        [width_s * index for index in range(len(counts))],
        [count / width_s for count in counts],
        step="post",
        color=MUTED,
        linewidth=0,
    )
    axes.set_ylim(0)
    _name(axes, "requests/s")


def _draw_ramp(pyplot: Any, results: Results, title: str) -> Any:
    """First tokens and tokens/s around the sharpest rise of load."""
    arrivals_ns = [record.arrival_ns for record in next(iter(results.values())).records]
    burst_ns = moments.sharpest_rise_ns(arrivals_ns)
    figure, (firsts, speed) = pyplot.subplots(
        2, figsize=(8, 6.4), sharex=True, height_ratios=(3, 2)
    )
    times, counts = _counted(arrivals_ns, burst_ns)
    firsts.fill_between(
        times, counts, step="post", color=GRID, linewidth=0, label="arrived", zorder=0
    )
    for order, (name, result) in enumerate(results.items()):
        line = _line(order, len(results))
        times, counts = _counted(moments.first_tokens_ns(result), burst_ns)
        firsts.step(times, counts, where="post", label=name, **line)
        speed.plot(*_tokens_per_s(result, burst_ns), **line)
    firsts.set_ylabel("requests with their first token")
    speed.set_ylabel("tokens/s")
    for axes in (firsts, speed):
        axes.set_ylim(0)
        axes.grid(visible=True, axis="y")
    speed.set_xlim(-BEFORE_S, AFTER_S)
    speed.set_xlabel(f"seconds from second {burst_ns / NS_PER_S:.0f} of the trace")
    _title(firsts, "Around the sharpest rise of load", title)
    figure.legend(loc="outside right center")
    return figure


def _counted(times_ns: Sequence[int], zero_ns: int) -> tuple[list[float], list[int]]:
    """How many there were by when, in seconds from `zero_ns`, in the ramp's window."""
    low = bisect.bisect_left(times_ns, zero_ns - BEFORE_S * NS_PER_S)
    high = bisect.bisect_right(times_ns, zero_ns + AFTER_S * NS_PER_S)
    times = [(at_ns - zero_ns) / NS_PER_S for at_ns in times_ns[low:high]]
    num = len(times)
    return [-BEFORE_S, *times, AFTER_S], [0, *range(1, num + 1), num]


def _tokens_per_s(
    result: SimulationResult, zero_ns: int
) -> tuple[list[float], list[float]]:
    """Means over `SMOOTHED_S`, in seconds from `zero_ns`, in the ramp's window."""
    bin_s = result.bin_ns / NS_PER_S
    width = max(1, round(SMOOTHED_S / bin_s))
    first = max(0, int(zero_ns / result.bin_ns) - round(BEFORE_S / bin_s))
    last = min(len(result.tokens), first + round((BEFORE_S + AFTER_S) / bin_s) + 1)
    times, rates = [], []
    for index in range(first, last):
        recent = result.tokens[max(0, index + 1 - width) : index + 1]
        times.append((index + 1) * bin_s - zero_ns / NS_PER_S)
        rates.append(sum(recent) / width / bin_s)
    return times, rates


def _draw_blocks(pyplot: Any, results: Results, title: str) -> Any:
    """When each worker of the largest scale-out could compute with how many blocks."""
    found = {name: moments.largest_scale_out(each) for name, each in results.items()}
    scale_outs = {name: each for name, each in found.items() if each is not None}
    if not scale_outs:
        return None
    num_columns = min(3, len(scale_outs))
    num_rows = -(-len(scale_outs) // num_columns)
    figure, grid = pyplot.subplots(
        num_rows,
        num_columns,
        figsize=(3.2 * num_columns + 0.6, 0.9 + 1.75 * num_rows),
        squeeze=False,
    )
    cells = [axes for row in grid for axes in row]
    last_s = _shown_s([each.duration_ns / NS_PER_S for each in scale_outs.values()])
    orders = {name: order for order, name in enumerate(results)}
    for axes, (name, each) in zip(cells, scale_outs.items(), strict=False):
        _draw_scale_out(axes, each, _colour(orders[name]), last_s)
        whole_s = each.duration_ns / NS_PER_S
        axes.set_title(
            f"{name}: {len(each.workers)} in {whole_s:.2f} s", fontsize=9, pad=4
        )
    for axes in cells[len(scale_outs) :]:
        axes.set_axis_off()
    for axes in cells[max(0, len(scale_outs) - num_columns) : len(scale_outs)]:
        axes.set_xlabel("seconds from the request")
    figure.suptitle(
        "The largest scale-out: each row a worker, darker with each block it has\n"
        f"{title}",
        x=0.01,
        ha="left",
        fontsize=10,
    )
    return figure


def _shown_s(durations_s: Sequence[float]) -> float:
    """The end of the axis: two scale-outs in three fit, so that the slow hide none."""
    ordered = sorted(durations_s)
    return max(1.25 * ordered[(2 * len(ordered)) // 3 - 1], 1e-3)


def _draw_scale_out(
    axes: Any, found: moments.ScaleOut, colour: str, last_s: float
) -> None:
    for row, arrivals in enumerate(found.workers):
        times = [min(at_ns / NS_PER_S, last_s) for at_ns in arrivals]
        spans = itertools.pairwise([*times, last_s])
        for held, (start_s, until_s) in enumerate(spans, 1):
            axes.barh(
                row,
                until_s - start_s,
                left=start_s,
                height=0.8,
                color=colour,
                alpha=0.12 + 0.88 * held / max(found.num_blocks, 1),
                linewidth=0,
            )
    axes.set_ylim(len(found.workers) - 0.4, -0.6)
    axes.set_yticks([])
    axes.set_xlim(0, last_s)
    axes.spines["left"].set_visible(False)


def _most(result: SimulationResult) -> int:
    return max((count for _, count in metrics.fleet(result.workers)), default=1)


def _colour(order: int) -> str:
    return FIRST if order == 0 else OTHERS[(order - 1) % len(OTHERS)]


def _line(order: int, num_systems: int) -> dict[str, Any]:
    is_first = order == 0
    return {
        "color": _colour(order),
        "linewidth": 2.6 if is_first else 1.3,
        "zorder": num_systems + 2 if is_first else num_systems - order + 2,
        "solid_capstyle": "round",
    }


def _title(axes: Any, text: str, subtitle: str) -> None:
    axes.set_title(text)
    axes.annotate(
        subtitle,
        (0, 1),
        xytext=(0, 7),
        xycoords="axes fraction",
        textcoords="offset points",
    )


def _name(axes: Any, text: str) -> None:
    axes.set_ylabel(text, rotation=0, ha="right", va="center")
