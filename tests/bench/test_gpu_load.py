import json
import pathlib
import subprocess
import sys

BENCH = pathlib.Path(__file__).parents[2] / "bench" / "gpu_load.py"
WAYS = {
    "host_to_device_limit",
    "host_to_device",
    "device_to_host_limit",
    "device_to_host",
    "disk_limit",
    "disk_to_landed",
    "disk_to_first_view",
    "disk_to_ready",
    "host_tier_to_landed",
    "host_tier_to_first_view",
    "host_tier_to_ready",
    "safetensors_to_ready",
    "orbax_to_ready",
}


def test_it_runs_on_an_emulated_device_and_writes_what_it_measured(tmp_path):
    result_path = tmp_path / "result.json"
    done = subprocess.run(
        [
            *(sys.executable, BENCH, "--cpu", "--size_mib=8", "--num_layers=4"),
            *("--num_blocks=2", "--repeats=2", f"--json={result_path}"),
            *(f"--directory={tmp_path}", f"--memory_directory={tmp_path}"),
        ],
        capture_output=True,
        text=True,
        cwd=BENCH.parents[1],
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(result_path.read_text())
    assert result["accelerator"] == "emulated device"
    assert result["num_blocks"] == 2
    assert abs(result["weights_bytes"] - (8 << 20)) < 1 << 20
    assert set(result["seconds"]) == WAYS
    assert all(len(times) == 2 for times in result["seconds"].values())
    assert all(ratio > 0 for ratio in result["ratios"].values())
    assert result["memory_bytes"]["arena"] >= result["weights_bytes"]
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
