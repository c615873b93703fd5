import pytest

from jscale.server.gpus import choose_gpu, environment_for, gpus_here


@pytest.fixture
def driver(tmp_path):
    """What the system says of a machine with three GPUs."""
    for name in ("0000:1b:00.0", "0000:43:00.0", "0000:52:00.0", "bind", "module"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_gpus_are_those_of_the_driver_or_those_that_one_may_see(driver, tmp_path):
    assert gpus_here({}, driver, tmp_path) == ("0", "1", "2")
    assert gpus_here({"CUDA_VISIBLE_DEVICES": "2, GPU-5f"}, driver) == ("2", "GPU-5f")
    assert gpus_here({"CUDA_VISIBLE_DEVICES": ""}, driver) == ()
    assert gpus_here({}, tmp_path / "none") == ()


def test_a_container_that_was_given_some_gpus_has_no_others(driver, tmp_path):
    """Its /sys is that of the host; those that it has are numbered from 0."""
    for name in ("nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert gpus_here({}, driver, tmp_path) == ("0", "1")


def test_workers_are_spread_and_places_used_again():
    gpus, taken = ("0", "1", "2"), []
    for expected in ("0", "1", "2", "0", "1"):
        taken.append(choose_gpu(gpus, taken))
        assert taken[-1] == expected
    taken.remove("2")
    assert choose_gpu(gpus, taken) == "2"
    assert choose_gpu((), ["", ""]) is None


def test_a_worker_sees_its_gpu_alone():
    here = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "2,5"}
    assert environment_for("5", here) == {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "5",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
    kept = {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
    assert environment_for("0", kept)["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"
    assert environment_for(None, here) == here
