"""How `jscale-simulate` shows what it does and what came of it."""

import contextlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from jscale.simulation.comparison import Comparison

CHARTS = "simulation-charts"
"""The folder for charts, unless another is asked for."""


@contextlib.contextmanager
def watched() -> Iterator[Callable[[str, float], None]]:
    """A progress bar on stderr; what is yielded takes a system and the share done."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("reading the trace", total=1.0)
    with bar:
        yield lambda name, share: bar.update(task, description=name, completed=share)


def charts_folder(asked: str | None, *, as_json: bool) -> str:
    """Where charts go; empty: nowhere.

    Nobody need ask for them where a table is printed and they can be drawn.
    """
    if asked is not None:
        return asked
    can_draw = importlib.util.find_spec("matplotlib") is not None
    return CHARTS if can_draw and not as_json else ""


def show(comparison: Comparison, *, as_json: bool, plot: str, timelines: str) -> None:
    """Prints the table, or JSON; writes charts and timelines, and says where.

    Args:
      comparison: what came of it.
      as_json: numbers for programs.
      plot: folder for charts; empty: none.
      timelines: folder for what each request saw; empty: nowhere.

    Raises:
      ConfigError: matplotlib is missing, or a folder cannot be written.
    """
    if as_json:
        print(json.dumps(comparison.as_json(), indent=2))
    else:
        comparison.print()
    paths = comparison.plot(plot) if plot else []
    paths += comparison.write_timelines(timelines) if timelines else []
    for path in paths:
        print(f"wrote {path}", file=sys.stderr)
