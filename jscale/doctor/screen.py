"""Findings on a terminal."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from jscale.doctor.findings import Finding, Section, Verdict

MARKS = {
    Verdict.GOOD: ("✓", "green"),
    Verdict.PLAIN: ("·", "dim"),
    Verdict.LACKING: ("!", "yellow"),
}
_NAME_WIDTH = 15


def show(sections: Sequence[Section], console: Console) -> None:
    """Prints every section, advice below what lacks something."""
    for section in sections:
        console.print(draw(section))


def draw(section: Section) -> RenderableType:
    """A heading, and a row for each finding; what is to be done is said once."""
    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column(width=_NAME_WIDTH, overflow="fold")
    table.add_column(overflow="fold")
    advice = ""
    for finding in section.findings:
        mark, style = MARKS[finding.verdict]
        is_new, advice = finding.advice != advice, finding.advice
        told = _told(finding, with_advice=is_new)
        table.add_row(Text(mark, style), Text(finding.name), told)
    heading = Text(section.title, "bold")
    return Padding(Group(heading, Padding(table, (0, 0, 0, 1))), (0, 0, 1, 0))


def _told(finding: Finding, *, with_advice: bool) -> Text:
    lines = [Text(finding.text)]
    lines += [Text(line, "dim") for line in finding.details]
    if finding.advice and with_advice:
        lines.append(Text(f"→ {finding.advice}", MARKS[finding.verdict][1]))
    return Text("\n").join(lines)
