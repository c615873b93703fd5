import json
import pathlib
import subprocess
import sys

BENCH = pathlib.Path(__file__).parents[2] / "bench" / "load.py"
WAYS = [
    "disk_limit",
    "disk_to_arena",
    "disk_to_ready",
    "host_limit",
    "host_to_arena",
    "host_to_ready",
    "digests",
    "safetensors",
    "orbax",
]


def test_it_measures_every_way_and_leaves_no_files(tmp_path):
    disk, memory = tmp_path / "disk", tmp_path / "memory"
    disk.mkdir()
    memory.mkdir()
    result_path = tmp_path / "result.json"
    done = subprocess.run(
        [
            *(sys.executable, BENCH, "--size_mib=8", "--num_layers=4"),
            *("--num_blocks=2", "--repeats=2", f"--json={result_path}"),
            *(f"--directory={disk}", f"--memory_directory={memory}"),
        ],
        capture_output=True,
        text=True,
        cwd=BENCH.parents[1],
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(result_path.read_text())
    assert list(result["seconds"]) == WAYS
    assert all(len(times) == 2 for times in result["seconds"].values())
    assert abs(result["weights_bytes"] - (8 << 20)) < 1 << 20
    assert all(
        ratio["median"] > 0 and ratio["fastest"] > 0
        for ratio in result["ratios"].values()
    )
    assert [*disk.iterdir(), *memory.iterdir()] == []
