"""What a demo came to."""

import dataclasses

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from jscale.core.units import NS_PER_MS, NS_PER_S
from jscale.server.load import Finished, rate_per_s
from jscale.server.metrics import percentile


@dataclasses.dataclass(frozen=True)
class Marks:
    """Moments of a demo, in nanoseconds from an arbitrary start.

    Attributes:
      started_ns: one worker serves, and the queue is full.
      scaled_ns: more workers were asked for.
      arrived_ns: the first of them was there.
      helped_ns: the first of them ran a stage.
      settled_ns: each of them runs the whole model.
      ended_ns: the last look.
    """

    started_ns: int
    scaled_ns: int
    arrived_ns: int
    helped_ns: int
    settled_ns: int
    ended_ns: int


@dataclasses.dataclass(frozen=True)
class DemoReport:
    """Every request, and when what happened."""

    num_workers: int
    marks: Marks
    finished: tuple[Finished, ...]
    token_times_ns: tuple[int, ...]
    num_handed_over: int

    @property
    def faults(self) -> tuple[str, ...]:
        """Why requests were not right; empty if all were."""
        return tuple(ended.fault for ended in self.finished if ended.fault)

    @property
    def is_right(self) -> bool:
        """Some requests ended, all with the tokens of a single worker."""
        return bool(self.finished) and not self.faults

    def render(self) -> RenderableType:
        """The summary for people."""
        marks = self.marks
        table = Table(box=box.SIMPLE_HEAD, title="what its clients saw", title_style="")
        table.add_column("")
        spans = {
            "one worker": (marks.started_ns, marks.scaled_ns),
            f"1 → {self.num_workers}": (marks.scaled_ns, marks.settled_ns),
            f"{self.num_workers} workers": (marks.settled_ns, marks.ended_ns),
        }
        for name in spans:
            table.add_column(name, justify="right")
        rows = zip(*(self._column(*span) for span in spans.values()), strict=True)
        names = ("seconds", "tokens/s", "first token p50", "first token p90", "stories")
        for name, row in zip(names, rows, strict=True):
            table.add_row(name, *row)
        return Group(table, *(Text(line) for line in self._lines()))

    def _column(self, start_ns: int, end_ns: int) -> tuple[str, ...]:
        inside = [e for e in self.finished if start_ns <= e.first_token_ns < end_ns]
        waits_ms = [(e.first_token_ns - e.sent_ns) / NS_PER_MS for e in inside]
        ended = sum(start_ns <= e.finished_ns < end_ns for e in self.finished)
        return (
            f"{(end_ns - start_ns) / NS_PER_S:.1f}",
            f"{rate_per_s(self.token_times_ns, start_ns, end_ns):,.0f}",
            f"{percentile(waits_ms, 50):,.0f} ms",
            f"{percentile(waits_ms, 90):,.0f} ms",
            f"{ended}",
        )

    def _lines(self) -> list[str]:
        marks, faults = self.marks, self.faults
        since_s = [
            (moment_ns - marks.scaled_ns) / NS_PER_S
            for moment_ns in (marks.arrived_ns, marks.helped_ns, marks.settled_ns)
        ]
        right = len(self.finished) - len(faults)
        lines = [
            f"the first new worker was there after {since_s[0]:.1f} s, ran a stage "
            f"after {since_s[1]:.1f} s; all {self.num_workers} were local after "
            f"{since_s[2]:.1f} s",
            f"live requests handed over: {self.num_handed_over}",
            f"{right} of {len(self.finished)} requests have exactly the tokens of a "
            f"single worker",
        ]
        return lines + [f"wrong: {fault}" for fault in sorted(set(faults))[:5]]
