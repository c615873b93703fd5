"""Tables and timelines say what was counted; charts are drawn, or refused in a line."""

import csv
import sys

import pytest

from jscale.core.errors import ConfigError
from jscale.simulation import plots, report
from jscale.simulation.metrics import summarise
from tests.simulation.small_results import record, result, scale_out_run, worker


def table():
    fast = summarise(scale_out_run())
    slow = result([record(0, 5, 9), record(1, None, None)], [worker(0, 12)])
    return report.table_text(
        [("fast", fast), ("slow", summarise(slow))], "two requests", price_per_hour=3600
    )


def test_a_table_compares_with_the_first_system():
    text = table()
    (fast,) = [line.split() for line in text.splitlines() if line.startswith(" fast")]
    (slow,) = [line.split() for line in text.splitlines() if line.startswith(" slow")]
    assert fast[:4] == ["fast", "0.50", "1.00", "1.00"]
    assert " ".join(fast[4:]) == "300 0.00 50.0 0.01 21.90 3 2 0.25 0.65"
    assert slow[:5] == ["slow", "5.00", "–", "–", "–"]
    assert slow[-5:] == ["-45.2", "12.00", "1", "0", "1"]


def test_a_table_fits_its_width_and_cuts_nothing():
    text = table()
    assert max(map(len, text.splitlines())) <= report.WIDTH
    assert "…" not in text
    assert text.splitlines()[0] == "two requests"


def test_timelines_have_a_line_for_each_request(tmp_path):
    records = [record(0, 1, 4), record(2, None, None, error="lost")]
    (path,) = report.write_timelines({"fast": result(records)}, tmp_path / "new")
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["first_token_s"] for line in lines] == ["1.0", ""]
    assert lines[0]["finished_s"] == "4.0"
    assert lines[1]["error"] == "lost"


@pytest.mark.parametrize("write", [report.write_timelines, plots.draw])
def test_a_folder_that_cannot_be_gets_one_clear_error(tmp_path, write):
    if write is plots.draw:
        pytest.importorskip("matplotlib")
    (tmp_path / "file").touch()
    arguments = ({"fast": scale_out_run()}, tmp_path / "file" / "folder")
    title = ("two requests",) if write is plots.draw else ()
    with pytest.raises(ConfigError, match=r"folder .*file.folder: Not a directory"):
        write(*arguments, *title)


def test_charts_are_pictures_of_some_size(tmp_path):
    pytest.importorskip("matplotlib")
    slow = result([record(0, 5, 9), record(2, None, None)], [worker(0, 12)])
    paths = plots.draw(
        {"fast": scale_out_run(), "slow": slow}, tmp_path, "two requests"
    )
    assert [path.name for path in paths] == [
        "ttft.png",
        "workers.png",
        "ramp.png",
        "blocks.png",
    ]
    for path in paths:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 10_000


def test_without_a_scale_out_there_is_no_chart_of_blocks(tmp_path):
    pytest.importorskip("matplotlib")
    slow = result([record(0, 5, 9)], [worker(0, 12)])
    names = [path.name for path in plots.draw({"slow": slow}, tmp_path, "one request")]
    assert names == ["ttft.png", "workers.png", "ramp.png"]


def test_without_matplotlib_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'jscale\[bench\]'"):
        plots.draw({"fast": scale_out_run()}, tmp_path, "two requests")
