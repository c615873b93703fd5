from tests.bench.running import load_small_model

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
    result = load_small_model("load.py", tmp_path, disk, memory)
    assert list(result["seconds"]) == WAYS
    assert all(
        ratio["median"] > 0 and ratio["fastest"] > 0
        for ratio in result["ratios"].values()
    )
    assert [*disk.iterdir(), *memory.iterdir()] == []
