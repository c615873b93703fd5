import os

import jax
import pytest

from jscale.core.errors import ConfigError
from jscale.core.units import GIB
from jscale.store import accelerator
from jscale.store.accelerator import XLA_MARGIN_BYTES, leave_room, new_arena
from jscale.store.arena import ArenaSizes
from jscale.store.device_arena import DeviceArena
from jscale.store.device_memory import DeviceMemoryError, MemoryInfo
from jscale.store.emulated_memory import EmulatedMemory
from jscale.store.host_arena import HostArena


@pytest.fixture(autouse=True)
def told_jax(monkeypatch):
    """How often JAX was told to use the processor, in place of telling it."""
    told = []
    monkeypatch.setattr(accelerator, "_use_the_processor", lambda: told.append(1))
    return told


SIZES = ArenaSizes(blocks_bytes=8192, host_bytes=4096, chunk_bytes=4096)


@pytest.mark.parametrize("total_gib", [16, 24, 80, 141])
@pytest.mark.parametrize("arena_share", [0.0, 0.3, 0.6, 0.9])
def test_arena_pool_and_margin_fit_and_waste_little(total_gib, arena_share):
    total_bytes = total_gib * GIB
    free_bytes = total_bytes - int(total_bytes * arena_share)
    environment = {}
    leave_room(environment, MemoryInfo(free_bytes, total_bytes))
    pool_bytes = float(environment["XLA_CLIENT_MEM_FRACTION"]) * total_bytes
    left_bytes = free_bytes - pool_bytes
    assert XLA_MARGIN_BYTES <= left_bytes <= XLA_MARGIN_BYTES + total_bytes / 9_000


@pytest.mark.parametrize(
    "name", ["XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"]
)
def test_what_the_user_set_stays(name):
    environment = {name: "0.5"}
    leave_room(environment, MemoryInfo(1, 80 * GIB))
    assert environment == {name: "0.5"}


def test_a_model_that_leaves_nothing_is_a_clear_error():
    with pytest.raises(ConfigError, match=r"leaves 0\.5 GiB|leaves 512\.0 MiB"):
        leave_room({}, MemoryInfo(GIB // 2, 80 * GIB))


@pytest.fixture
def device(monkeypatch):
    """What stands for the GPU that the driver shows."""
    device = EmulatedMemory(80 * GIB)
    monkeypatch.setattr(accelerator, "_may_use_gpu", lambda: True)
    monkeypatch.setattr(accelerator, "load_driver", lambda: None)
    monkeypatch.setattr(accelerator, "CudaMemory", lambda driver: device)
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "")  # So that it is undone.
    monkeypatch.delenv("XLA_CLIENT_MEM_FRACTION")
    return device


def test_a_gpu_has_the_arena_and_xla_the_rest(device, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    arena = new_arena("auto")(SIZES)
    assert isinstance(arena, DeviceArena)
    assert os.environ["XLA_CLIENT_MEM_FRACTION"] == "0.9874"  # 79 of 80 GiB.
    arena.close()


def test_a_gpu_that_jax_does_not_use_is_left_alone(device, monkeypatch, caplog):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    arena = new_arena("auto")(SIZES)
    assert isinstance(arena, HostArena)
    assert "arena in host memory: JAX uses cpu" in caplog.text
    assert device.info().free_bytes == 80 * GIB
    arena.close()


def test_it_may_be_emulated(told_jax):
    arena = new_arena("emulated")(SIZES)
    assert isinstance(arena, DeviceArena)
    assert told_jax
    arena.close()


@pytest.mark.parametrize("kind", ["host", "auto"])
def test_without_a_gpu_it_is_host_memory(kind, told_jax):
    if jax.default_backend() == "gpu":
        pytest.skip("there is one")
    arena = new_arena(kind)(SIZES)
    assert isinstance(arena, HostArena)
    assert bool(told_jax) == (kind == "host")
    arena.close()


def test_a_gpu_that_the_driver_does_not_give_is_not_computed_with(
    monkeypatch, caplog, told_jax
):
    def refuse():
        raise DeviceMemoryError("no CUDA driver")

    monkeypatch.setattr(accelerator, "_may_use_gpu", lambda: True)
    monkeypatch.setattr(accelerator, "load_driver", refuse)
    arena = new_arena("auto")(SIZES)
    assert isinstance(arena, HostArena)
    assert "arena in host memory: no CUDA driver" in caplog.text
    assert told_jax
    arena.close()
