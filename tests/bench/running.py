"""Benches of loading, run on a small model."""

import json
import pathlib
import subprocess
import sys

BENCHES = pathlib.Path(__file__).parents[2] / "bench"


def load_small_model(bench, folder, disk, memory, *flags):
    """What the bench says of 8 MiB in two blocks, each way twice."""
    result_path = folder / "result.json"
    done = subprocess.run(
        [
            *(sys.executable, BENCHES / bench, "--size_mib=8", "--num_layers=4"),
            *("--num_blocks=2", "--repeats=2", f"--json={result_path}", *flags),
            *(f"--directory={disk}", f"--memory_directory={memory}"),
        ],
        capture_output=True,
        text=True,
        cwd=BENCHES.parent,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(result_path.read_text())
    assert all(len(times) == 2 for times in result["seconds"].values())
    assert abs(result["weights_bytes"] - (8 << 20)) < 1 << 20
    return result
