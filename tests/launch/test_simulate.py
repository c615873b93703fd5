"""`jscale-simulate` from its flags to what it prints and writes."""

import json
import subprocess
import sys

import pytest

SMALL = (
    "--trace=burst:requests=6,at=1",
    "--lengths=fixed:prompt=16,output=8",
    "--model=llama-2-7b",
    "--workers=2",
    "--system=jscale,ideal",
    "--max_sequences=2",
)


def simulate(*flags, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "jscale.launch.simulate", *SMALL, *flags],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def test_json_alone_is_on_standard_output():
    printed = json.loads(simulate("--json").stdout)
    assert printed["title"].startswith(
        "burst:requests=6,at=1: 6 requests of llama-2-7b"
    )
    assert [system["name"] for system in printed["systems"]] == ["jscale", "ideal"]
    assert all(system["num_failed"] == 0 for system in printed["systems"])


def test_charts_go_with_a_table_unless_they_are_not_wanted(tmp_path):
    pytest.importorskip("matplotlib")
    simulate("--json", cwd=tmp_path)
    simulate("--plot=", cwd=tmp_path)
    assert not list(tmp_path.iterdir())
    ended = simulate(cwd=tmp_path)
    assert (tmp_path / "simulation-charts" / "ttft.png").is_file()
    assert "wrote simulation-charts" in ended.stderr


def test_a_table_is_printed_and_files_are_written(tmp_path):
    pytest.importorskip("matplotlib")
    ended = simulate(f"--plot={tmp_path / 'charts'}", f"--timelines={tmp_path}")
    assert " jscale " in ended.stdout
    assert " ideal " in ended.stdout
    assert "…" not in ended.stdout
    assert (tmp_path / "charts" / "ttft.png").stat().st_size > 10_000
    lines = (tmp_path / "requests_jscale.csv").read_text().splitlines()
    assert len(lines) == 1 + 6
    assert f"wrote {tmp_path / 'requests_ideal.csv'}" in ended.stderr
