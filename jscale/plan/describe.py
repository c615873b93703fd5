"""A multicast plan as people read it: what it costs, who sends what when."""

from collections.abc import Iterator, Sequence

from jscale.core.ids import WorkerId
from jscale.plan.multicast_plan import MulticastPlan

_MEMBERS_SHOWN_MAX = 8
_STEPS_SHOWN_MAX = 12


def describe(plan: MulticastPlan) -> str:
    """A text table: the cost of a plan, then one line a step and one column a sender.

    `3→w5` in the column of w1 says that w1 sends chunk 3 to w5 in that step. Of a long
    plan the first and last steps are shown, of a wide one the first members.
    """
    return "\n".join([*_header(plan), "", *_table(plan)])


def _header(plan: MulticastPlan) -> Iterator[str]:
    """What the plan is for and what it costs beside what it must."""
    num_targets = len(plan.targets)
    to = f"{num_targets} target{'s' if num_targets > 1 else ''}"
    least = plan.num_steps_min
    over = plan.num_steps - least
    verdict = "the least possible" if over == 0 else f"{over} over the least, {least}"
    line = plan.num_steps / plan.num_chunks
    sends = "sends" if len(plan.sources) == 1 else "send"
    who = f"{_span(plan.sources)} {sends} to {_span(plan.targets)}"
    yield f"{plan.label} multicast of {plan.num_chunks} chunks to {to}"
    yield f"  members  {plan.num_members}: {who}"
    yield f"  chunks   {plan.num_chunks}: {plan.num_chunks * num_targets} transfers"
    yield f"  steps    {plan.num_steps}: {verdict}"
    yield f"  bound    {line:.3f} × size / link rate until every target is complete"


def _span(members: Sequence[WorkerId]) -> str:
    """The members, shortened: `w1 … w7`."""
    first, last = members[0], members[-1]
    return first if first == last else f"{first} … {last}"


def _table(plan: MulticastPlan) -> Iterator[str]:
    """The first and last steps."""
    senders = plan.members[:_MEMBERS_SHOWN_MAX]
    hidden = plan.num_members - len(senders)
    rows = [["step", *senders, *([f"+{hidden} more"] if hidden else [])]]
    shown = _steps_shown(plan.num_steps)
    rows += [_row(plan, step, len(senders)) for step in shown]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        if number and shown[number - 1] - max(shown[number - 2], 0) > 1 < number:
            yield f"  {'⋮':>{widths[0]}}"
        cells = [row[0].rjust(widths[0])]
        cells += [cell.ljust(width) for cell, width in zip(row, widths, strict=True)][
            1:
        ]
        yield "  " + "  ".join(cells).rstrip()


def _steps_shown(num_steps: int) -> list[int]:
    """Every step of a short plan, the first and last ones of a long one."""
    if num_steps <= _STEPS_SHOWN_MAX:
        return list(range(num_steps))
    half = _STEPS_SHOWN_MAX // 2
    return [*range(half), *range(num_steps - half, num_steps)]


def _row(plan: MulticastPlan, step: int, num_shown: int) -> list[str]:
    """What each sender sends in a step; for those not shown, how many send."""
    row = [str(step)]
    for index in range(num_shown):
        sent = plan.outgoing_at(index, step)
        row.append("·" if sent is None else f"{sent[1]}→{plan.members[sent[0]]}")
    if num_shown < plan.num_members:
        others = range(num_shown, plan.num_members)
        row.append(
            f"{sum(plan.outgoing_at(i, step) is not None for i in others)} sends"
        )
    return row
