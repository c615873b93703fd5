"""What only a GPU can show: views in its own memory. `pytest -m gpu` runs these."""

import gc
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jscale.core.layout import TensorLayout
from jscale.store.arena import ArenaSizes
from jscale.store.cuda_memory import CudaMemory, load_driver
from jscale.store.device_arena import DeviceArena
from jscale.store.device_memory import DeviceMemoryError
from tests.store.loading import assert_a_model_loads

if jax.default_backend() != "gpu":
    pytest.skip("JAX has no GPU here", allow_module_level=True)

pytestmark = pytest.mark.gpu
CHUNK = 1 << 20
SIZES = ArenaSizes(blocks_bytes=8 * CHUNK, host_bytes=CHUNK, chunk_bytes=CHUNK)


@pytest.fixture
def arena():
    arena = DeviceArena(CudaMemory(load_driver()), SIZES)
    yield arena
    gc.collect()
    arena.close(timeout_s=10)


def write(arena, values):
    slot = arena.host_slot(0, values.nbytes)
    slot[:] = values.tobytes()
    del slot
    arena.landed(0)
    arena.synchronize()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_view_aliases_the_memory_of_the_gpu(arena, dtype):
    values = np.arange(600).reshape(20, 30).astype(jnp.dtype(dtype))
    write(arena, values)
    view = arena.view(0, TensorLayout("t", dtype, (20, 30), 0))
    assert {device.platform for device in view.devices()} == {"gpu"}
    assert view.unsafe_buffer_pointer() == arena.address
    np.testing.assert_array_equal(np.asarray(view), values)
    assert arena.num_views == 1
    del view
    gc.collect()
    assert arena.num_views == 0


def test_computations_read_it_in_place(arena):
    values = np.arange(64, dtype=np.float32).reshape(8, 8)
    write(arena, values)
    view = arena.view(0, TensorLayout("t", "float32", (8, 8), 0))
    assert jax.device_put(view).unsafe_buffer_pointer() == arena.address
    np.testing.assert_array_equal(jax.jit(lambda x: x + x.T)(view), values + values.T)


def test_a_model_comes_from_disk_to_views(tmp_path):
    assert_a_model_loads(
        tmp_path,
        lambda sizes: DeviceArena(CudaMemory(load_driver()), sizes),
        size_bytes=32 << 20,
        timeout_s=10,
    )


def test_its_memory_is_exported_or_it_is_said_why_not(arena):
    try:
        os.close(arena.export_dmabuf())
    except DeviceMemoryError as error:
        pytest.skip(str(error))
