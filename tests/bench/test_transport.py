"""The bench of transports measures what it says, if only for an instant here."""

import json
import pathlib
import subprocess
import sys

BENCH = pathlib.Path(__file__).parents[2] / "bench" / "transport.py"


def test_every_way_moves_all_of_the_memory(tmp_path):
    out = tmp_path / "out.json"
    command = [sys.executable, str(BENCH), f"--json={out}", "--transport=tcp"]
    command += ["--mib=1", "--chunk_kib=64,300", "--repeats=2", "--no_pin"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(out.read_text())
    cases = {(case["way"], case["chunk_size_bytes"]): case for case in found["cases"]}
    ways = ("memcpy", "mem", "sockets", "checked", "tcp")
    assert cases.keys() == {(way, kib << 10) for way in ways for kib in (64, 300)}
    for (way, _), case in cases.items():
        assert [sample["size_bytes"] for sample in case["samples"]] == [1 << 20] * 2
        assert (case["of_bare"] is None) is (way in ("memcpy", "sockets"))


def test_checksums_can_be_left_out():
    command = [sys.executable, str(BENCH), "--transport=tcp", "--no_checksums"]
    command += ["--mib=1", "--chunk_kib=256", "--repeats=1", "--without=mem"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert "of sockets" in ended.stdout


def test_rdma_that_is_not_there_is_one_line():
    command = [sys.executable, str(BENCH), "--sender=192.0.2.1:x", "--transport=rdma"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert ended.stderr.startswith("transport: RDMA was asked for")
