"""A cluster at work, drawn for a terminal of 100 columns and 30 lines."""

from collections.abc import Iterable, Iterator, Mapping

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from jscale.core.units import format_size
from jscale.proto.v1 import jscale_pb2 as pb
from jscale.server.area_chart import area_chart
from jscale.server.snapshot import Snapshot, stage_blocks

Colours = Mapping[str, str]

NUM_WORKERS_SHOWN = 5
NUM_PIPELINES_SHOWN = 6
NUM_STORIES_SHOWN = 3
BLOCKS_WIDTH = 45
PIPELINE_WIDTH = 46
LOAD_WIDTH = 16
STORY_WIDTH = 90
CHART_WIDTH = 56
CHART_HEIGHT = 5

WORKER_COLOURS = (
    "#7aa2f7",
    "#9ece6a",
    "#e0af68",
    "#bb9af7",
    "#7dcfff",
    "#f7768e",
    "#73daca",
    "#ff9e64",
)
"""A worker has the same colour wherever it is shown."""

DIM = "#565f89"
FAINT = "#3b4261"
BRIGHT = "#c0caf5"
GOOD = "#9ece6a"
CHART_COLOUR = "#7dcfff"
BAD = "#f7768e"

_PHASES = {
    pb.PHASE_LOADING: ("loading", "#e0af68"),
    pb.PHASE_PIPELINED: ("pipelined", "#bb9af7"),
    pb.PHASE_LOCAL: ("local", GOOD),
    pb.PHASE_LEAVING: ("leaving", DIM),
}


def draw(snapshot: Snapshot) -> RenderableType:
    """The whole picture: 30 lines for up to six workers."""
    status = snapshot.status
    colours = {
        worker.worker: WORKER_COLOURS[index % len(WORKER_COLOURS)]
        for index, worker in enumerate(status.workers)
    }
    body = Group(
        _titled("workers", _worker_lines(status, colours), NUM_WORKERS_SHOWN),
        _titled(
            "execution pipelines",
            _pipeline_lines(status, colours),
            NUM_PIPELINES_SHOWN,
        ),
        _titled("tokens per second", _speed_lines(snapshot), CHART_HEIGHT),
        _titled("stories", _story_lines(snapshot.stories), NUM_STORIES_SHOWN),
    )
    size = format_size(sum(status.block_sizes_bytes))
    title = Text.assemble(
        ("jscale", f"bold {BRIGHT}"),
        (
            f"  {status.model} · {len(status.block_sizes_bytes)} blocks · {size}",
            DIM,
        ),
    )
    wrong = snapshot.num_wrong
    checked = Text.assemble(
        (f"{snapshot.elapsed_s:5.1f} s  ", DIM),
        (snapshot.headline, BRIGHT),
        ("   ✓ ", GOOD),
        (f"{snapshot.num_right} stories as a single worker tells them", DIM),
        (f"   ✗ {wrong} not" if wrong else "", f"bold {BAD}"),
    )
    return Panel(
        body,
        title=title,
        title_align="left",
        subtitle=checked,
        subtitle_align="left",
        box=box.ROUNDED,
        border_style=FAINT,
        padding=(0, 1),
        width=100,
    )


def _titled(title: str, lines: Iterable[RenderableType], height: int) -> Group:
    """The lines under a heading, padded to a height so that nothing jumps."""
    heading = Text.assemble((f"{title} ", DIM), ("─" * (95 - len(title)), FAINT))
    shown = list(lines)[:height]
    return Group(heading, *shown, *([Text("")] * (height - len(shown))))


def _worker_lines(status: pb.ModelStatusResponse, colours: Colours) -> Iterator[Text]:
    for worker in status.workers:
        phase, phase_colour = _PHASES.get(worker.phase, ("starting", DIM))
        is_moving = worker.phase in (pb.PHASE_LOADING, pb.PHASE_PIPELINED)
        line = Text.assemble(
            (f"● {worker.worker:<4}", f"bold {colours[worker.worker]}"),
            (f"{phase:<10}", phase_colour),
        )
        line.append_text(
            _cells(
                set(worker.blocks),
                len(status.block_sizes_bytes),
                colour=colours[worker.worker],
                is_moving=is_moving and worker.bytes_per_s > 0,
            )
        )
        held = sum(status.block_sizes_bytes[block] for block in worker.blocks)
        line.append(f"  {format_size(held):>10}", DIM)
        if is_moving and worker.bytes_per_s > 0:
            line.append(f"  ↓ {format_size(worker.bytes_per_s)}/s", BRIGHT)
        elif worker.num_tokens:
            line.append(f"  {worker.num_tokens:,} tokens", DIM)
        yield line


def _cells(ready: set[int], num_blocks: int, *, colour: str, is_moving: bool) -> Text:
    """A cell for each block: full, on its way, or missing."""
    cells = Text()
    width = max(1, BLOCKS_WIDTH // max(1, num_blocks) - 1)
    per_cell = max(1, -(-num_blocks // BLOCKS_WIDTH))
    is_next = is_moving
    for first in range(0, num_blocks, per_cell):
        blocks = range(first, min(first + per_cell, num_blocks))
        if all(block in ready for block in blocks):
            cells.append("█" * width, colour)
        elif is_next:
            cells.append("▒" * width, colour)
            is_next = False
        else:
            cells.append("░" * width, FAINT)
        if num_blocks * 2 <= BLOCKS_WIDTH:
            cells.append(" ")
    cells.pad_right(BLOCKS_WIDTH - cells.cell_len)
    return cells


def _pipeline_lines(status: pb.ModelStatusResponse, colours: Colours) -> Iterator[Text]:
    for pipeline in sorted(status.pipelines, key=lambda p: (len(p.stages), p.id)):
        line = Text(f"{'#' + str(pipeline.id):<6}", DIM)
        for index, stage in enumerate(pipeline.stages):
            if index:
                line.append(" → ", DIM)
            whole = len(pipeline.stages) == 1
            blocks = "all" if whole else stage_blocks(stage)
            colour = colours.get(stage.worker, DIM)
            line.append(stage.worker, f"bold {colour}")
            line.append(f"[{blocks}]", colour)
        line.pad_right(max(0, PIPELINE_WIDTH - line.cell_len))
        capacity = max(pipeline.capacity, 1)
        filled = round(LOAD_WIDTH * min(pipeline.num_running / capacity, 1))
        line.append("▮" * filled, GOOD)
        line.append("▯" * (LOAD_WIDTH - filled), FAINT)
        line.append(f" {pipeline.num_running} of {pipeline.capacity} sequences", DIM)
        yield line


def _speed_lines(snapshot: Snapshot) -> Iterator[Text]:
    serving = snapshot.status.serving
    chart = area_chart(snapshot.speeds, width=CHART_WIDTH, height=CHART_HEIGHT)
    facts = (
        ("tokens/s", f"{serving.tokens_per_s:,.0f}"),
        (
            "first token",
            f"{_time(serving.ttft_p50_ms)}  (p90 {_time(serving.ttft_p90_ms)})",
        ),
        ("running", f"{serving.num_running}"),
        ("queued", f"{serving.num_queued}"),
        (
            "handed over",
            f"{serving.num_handed_over}  ({serving.num_kv_moved} with KV)",
        ),
    )
    for row, (name, value) in zip(chart, facts, strict=True):
        yield Text.assemble(
            (row, CHART_COLOUR), "  ", (f"{name:<13}", DIM), (value, BRIGHT)
        )


def _time(duration_ms: float) -> str:
    if duration_ms < 1000:
        return f"{duration_ms:.0f} ms"
    return f"{duration_ms / 1000:.1f} s"


def _story_lines(stories: Iterable[str]) -> Iterator[Text]:
    for story in stories:
        text = " ".join(story.split())
        start = "…" if len(text) > STORY_WIDTH else "“"
        text = text[-STORY_WIDTH:]
        yield Text.assemble((start, DIM), (text, BRIGHT), ("▌", CHART_COLOUR))
