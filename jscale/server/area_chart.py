"""Numbers as hills of block characters."""

import itertools
from collections.abc import Sequence

EIGHTHS = " ▁▂▃▄▅▆▇█"


def area_chart(
    values: Sequence[float], *, width: int, height: int, top: float | None = None
) -> list[str]:
    """Lines of text, the highest first; the last value is at the right edge.

    More values than characters share them, each character the mean of its own.

    Args:
      values: 0 or more.
      width: characters of a line.
      height: number of lines.
      top: the value that fills the height; by default the largest.

    `area_chart([0, 1, 2], width=4, height=2)` is `["   █", "  ██"]`.
    """
    shown = _shared(values, width)
    highest = max(shown, default=0) if top is None else top
    scale = height * 8 / highest if highest > 0 else 0
    levels = [min(round(value * scale), height * 8) for value in shown]
    levels = [0] * (width - len(levels)) + levels
    return [
        "".join(EIGHTHS[min(max(level - 8 * row, 0), 8)] for level in levels)
        for row in reversed(range(height))
    ]


def _shared(values: Sequence[float], width: int) -> list[float]:
    """At most `width` numbers: means of values next to each other."""
    if len(values) <= width:
        return list(values)
    edges = [index * len(values) // width for index in range(width + 1)]
    return [
        sum(values[start:end]) / (end - start)
        for start, end in itertools.pairwise(edges)
    ]
