from tests.bench.running import load_small_model

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
    result = load_small_model("gpu_load.py", tmp_path, tmp_path, tmp_path, "--cpu")
    assert result["accelerator"] == "emulated device"
    assert result["num_blocks"] == 2
    assert set(result["seconds"]) == WAYS
    assert all(ratio > 0 for ratio in result["ratios"].values())
    assert result["memory_bytes"]["arena"] >= result["weights_bytes"]
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
