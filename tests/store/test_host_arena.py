import gc
import mmap
import subprocess
import sys
import threading
import weakref

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jscale.core.errors import ConfigError
from jscale.core.layout import TensorLayout
from jscale.store.arena import ArenaSizes, InUseError
from jscale.store.host_arena import HostArena

DTYPES = {
    "float32": np.float32,
    "bfloat16": ml_dtypes.bfloat16,
    "float16": np.float16,
}


@pytest.fixture
def arena():
    arena = HostArena(ArenaSizes(1 << 16, 0, 4096))
    yield arena
    gc.collect()
    arena.close()


def fill(arena, offset_bytes, values):
    """Writes an array's bytes where a view will be made."""
    data = values.view(np.uint8).reshape(-1)
    arena.memory(offset_bytes, data.nbytes)[:] = data.data


def test_the_arena_starts_at_a_page(arena):
    assert arena.address % mmap.PAGESIZE == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset_bytes", [0, 256, 4096 - 256, 9 * 256])
def test_a_view_aliases_the_arena(arena, dtype, offset_bytes):
    values = np.arange(24).reshape(2, 3, 4).astype(DTYPES[dtype])
    fill(arena, offset_bytes + 512, values)
    view = arena.view(offset_bytes, TensorLayout("t", dtype, (2, 3, 4), 512))
    assert view.unsafe_buffer_pointer() == arena.address + offset_bytes + 512
    assert view.dtype == jnp.dtype(dtype)
    np.testing.assert_array_equal(np.asarray(view), values)
    del view


def test_a_view_is_used_by_jit_in_place(arena):
    values = np.arange(64, dtype=np.float32).reshape(8, 8)
    fill(arena, 0, values)
    view = arena.view(0, TensorLayout("t", "float32", (8, 8), 0))
    product = jax.jit(jnp.matmul)(view, view)
    np.testing.assert_array_equal(product, values @ values)
    assert jax.device_put(view).unsafe_buffer_pointer() == arena.address
    del view, product


def test_views_are_counted_while_they_live(arena):
    tensor = TensorLayout("t", "float32", (4,), 0)
    first, second = arena.view(0, tensor), arena.view(0, tensor)
    assert arena.num_views == 2
    del first
    assert arena.num_views == 1
    del second
    assert arena.num_views == 0


def test_keep_alive_is_referenced_as_long_as_the_view(arena):
    class Token:
        pass

    token = Token()
    alive = weakref.ref(token)
    view = arena.view(0, TensorLayout("t", "bfloat16", (4,), 0), keep_alive=token)
    del token
    assert alive() is not None
    del view
    assert alive() is None


def test_closing_is_refused_while_a_view_lives():
    arena = HostArena(ArenaSizes(4096, 0, 4096))
    view = arena.view(0, TensorLayout("t", "float32", (4,), 0))
    with pytest.raises(InUseError, match="1 array views are alive"):
        arena.close(timeout_s=0)
    del view
    arena.close()


def test_closing_waits_for_a_view_to_die():
    arena = HostArena(ArenaSizes(4096, 0, 4096))
    views = [arena.view(0, TensorLayout("t", "float32", (4,), 0))]
    closer = threading.Thread(target=arena.close, kwargs={"timeout_s": 60})
    closer.start()
    views.clear()
    closer.join()
    assert arena.num_views == 0


def test_closing_is_refused_while_memory_is_held():
    arena = HostArena(ArenaSizes(4096, 0, 4096))
    memory = arena.memory(0, 16)
    with pytest.raises(InUseError, match="release it before closing"):
        arena.close()
    memory.release()
    arena.close()


def test_a_view_outlives_its_dropped_arena():
    arena = HostArena(ArenaSizes(4096, 0, 4096))
    fill(arena, 0, np.full(4, 7, np.float32))
    view = arena.view(0, TensorLayout("t", "float32", (4,), 0))
    del arena
    gc.collect()
    np.testing.assert_array_equal(view, np.full(4, 7, np.float32))


def test_discarded_pages_read_as_zero_and_neighbours_stay(arena):
    arena.memory(0, 1 << 16)[:] = b"\x01" * (1 << 16)
    arena.discard(100, 3 * mmap.PAGESIZE)
    kept, gone = arena.memory(0, mmap.PAGESIZE), mmap.PAGESIZE
    assert set(kept) == {1}
    assert set(arena.memory(gone, 2 * mmap.PAGESIZE)) == {0}
    assert set(arena.memory(3 * mmap.PAGESIZE, 100)) == {1}
    kept.release()


def test_too_large_an_arena_is_a_clear_error():
    with pytest.raises(ConfigError, match="cannot be mapped"):
        HostArena(ArenaSizes(1 << 60, 0, 4096))


def test_a_process_may_end_with_views_alive():
    script = """
from jscale.core.layout import TensorLayout
from jscale.store.arena import ArenaSizes
from jscale.store.host_arena import HostArena
arena = HostArena(ArenaSizes(4096, 0, 4096))
view = arena.view(0, TensorLayout("t", "bfloat16", (4,), 0))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert done.returncode == 0, done.stderr
