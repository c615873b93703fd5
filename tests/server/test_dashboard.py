"""The picture fits a terminal of 100 columns and 30 lines, whatever it shows."""

import io

import pytest
from rich.console import Console

from jscale.proto.v1 import jscale_pb2 as pb
from jscale.server.area_chart import area_chart
from jscale.server.dashboard import draw
from jscale.server.screen import Screen
from jscale.server.snapshot import Snapshot, pipeline_text, status_line


def status(num_workers=4, num_blocks=5, num_pipelines=4):
    return pb.ModelStatusResponse(
        model="stories",
        block_sizes_bytes=[1000] * num_blocks,
        num_workers_wanted=num_workers,
        workers=[
            pb.WorkerStatus(
                worker=f"w{index}",
                phase=1 + index % 4,
                blocks=range(min(index, num_blocks)),
                bytes_per_s=1e6 if index % 2 else 0,
            )
            for index in range(num_workers)
        ],
        pipelines=[
            pb.Pipeline(
                id=index,
                stages=[
                    pb.Stage(worker="w1", first_block=0, num_blocks=3),
                    pb.Stage(worker="w0", first_block=3, num_blocks=1),
                ],
                num_running=index,
                capacity=32,
            )
            for index in range(num_pipelines)
        ],
    )


def snapshot(**sizes):
    return Snapshot(
        status=status(**sizes),
        headline="3 more workers join while it serves",
        elapsed_s=1234.5,
        speeds=tuple(range(500)),
        stories=("Once upon\na time " * 20, "", "The dog"),
        num_right=12345,
        num_wrong=2,
    )


@pytest.mark.parametrize("num_workers", [0, 1, 4, 64])
@pytest.mark.parametrize("num_blocks", [0, 1, 5, 32, 80])
@pytest.mark.parametrize("num_pipelines", [0, 40])
def test_the_picture_fits(num_workers, num_blocks, num_pipelines):
    sizes = (num_workers, num_blocks, num_pipelines)
    names = ("num_workers", "num_blocks", "num_pipelines")
    console = Console(width=100, height=30, file=io.StringIO())
    picture = draw(snapshot(**dict(zip(names, sizes, strict=True))))
    lines = console.render_lines(picture, pad=False)
    assert len(lines) <= 30
    assert {sum(part.cell_length for part in line) for line in lines} == {100}


def test_the_picture_does_not_jump_when_workers_come():
    console = Console(width=100, file=io.StringIO())
    heights = {
        len(console.render_lines(draw(snapshot(num_workers=n, num_pipelines=n))))
        for n in range(6)
    }
    assert len(heights) == 1


def test_pipelines_are_told_by_workers_and_blocks():
    (pipeline,) = status(num_pipelines=1).pipelines
    assert pipeline_text(pipeline) == "w1[0-2] → w0[3]"
    assert status_line(status(2, 5, 1)) == "w0 0/5 w1 1/5 | w1[0-2] → w0[3]"


def test_without_a_terminal_a_line_tells_each_change_once(capsys):
    console = Console(file=io.StringIO(), force_terminal=False)
    with Screen(console) as screen:
        for num_workers in (1, 1, 2):
            screen.show(snapshot(num_workers=num_workers, num_pipelines=0))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["w0 0/5 | ", "w0 0/5 w1 1/5 | "]


def test_in_a_terminal_the_picture_is_drawn():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Screen(console) as screen:
        screen.say("starting")
        screen.show(snapshot())
    assert "execution pipelines" in console.file.getvalue()


def test_hills_are_as_high_as_their_values():
    assert area_chart([0, 1, 2], width=4, height=2) == ["   █", "  ██"]
    assert area_chart([1, 1, 4, 2, 2], width=3, height=1) == ["▃█▆"]
    assert area_chart([], width=3, height=1) == ["   "]
    assert area_chart([5, 5], width=2, height=1, top=10) == ["▄▄"]
