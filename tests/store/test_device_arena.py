import gc
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jscale.core.errors import ConfigError
from jscale.core.layout import TensorLayout
from jscale.core.spans import DeviceSpan
from jscale.store.arena import ArenaSizes, InUseError, StagingCounts
from jscale.store.device_arena import DeviceArena
from jscale.store.device_memory import DeviceMemoryError
from jscale.store.digest import digest_of
from jscale.store.emulated_memory import EmulatedMemory

CHUNK = 4096
SIZES = ArenaSizes(blocks_bytes=16 * CHUNK, host_bytes=CHUNK, chunk_bytes=CHUNK)


class Gate:
    """Holds copies back until the test lets them go."""

    def __init__(self):
        self.permits = threading.Semaphore(0)

    def __call__(self, number):
        del number
        self.permits.acquire()

    def open(self):
        self.permits.release(1000)


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def slow_arena(gate):
    """One whose copies do not begin before the gate opens."""
    arena = DeviceArena(EmulatedMemory(before_copy=gate), SIZES, slots_in=4)
    yield arena
    gate.open()
    gc.collect()
    arena.close()


@pytest.fixture
def arena():
    arena = DeviceArena(EmulatedMemory(), SIZES, slots_in=4)
    yield arena
    gc.collect()
    arena.close()


def pattern(seed, size_bytes=CHUNK):
    return np.random.default_rng(seed).bytes(size_bytes)


def receive(arena, offset_bytes, data):
    slot = arena.slot(offset_bytes, len(data))
    slot[:] = data
    del slot
    arena.landed(offset_bytes)


def test_what_landed_is_read_back_though_its_copy_was_not_waited_for(arena):
    for index in range(16):
        receive(arena, index * CHUNK, pattern(index))
    for index in reversed(range(16)):
        assert arena.read(index * CHUNK, CHUNK) == pattern(index)


def test_receiving_goes_on_while_copies_are_under_way(slow_arena, gate):
    for index in range(4):
        receive(slow_arena, index * CHUNK, pattern(index))
    assert slow_arena.staging == StagingCounts()
    gate.open()
    assert slow_arena.read(3 * CHUNK, CHUNK) == pattern(3)


def test_a_full_ring_waits_for_a_copy_and_overwrites_nothing(slow_arena, gate):
    for index in range(4):
        receive(slow_arena, index * CHUNK, pattern(index))
    later = threading.Thread(target=receive, args=(slow_arena, 4 * CHUNK, pattern(4)))
    later.start()
    gate.permits.release()
    later.join()
    assert slow_arena.staging.num_waits == 1
    gate.open()
    for index in range(5):
        assert slow_arena.read(index * CHUNK, CHUNK) == pattern(index)


def test_more_slots_than_there_are_may_be_held_at_once(arena):
    slots = [arena.slot(index * CHUNK, CHUNK) for index in range(10)]
    assert arena.staging.num_spares == 6
    for index, slot in enumerate(slots):
        slot[:] = pattern(index)
    del slot
    slots.clear()
    for index in reversed(range(10)):
        arena.landed(index * CHUNK)
    for index in range(10):
        assert arena.read(index * CHUNK, CHUNK) == pattern(index)


def test_a_slot_that_failed_changes_nothing(arena):
    receive(arena, 0, pattern(0))
    slot = arena.slot(CHUNK, CHUNK)
    slot[:] = pattern(1)
    del slot
    arena.failed(CHUNK)
    arena.synchronize()
    assert arena.read(CHUNK, CHUNK) == bytes(CHUNK)
    receive(arena, CHUNK, pattern(2))
    assert arena.read(CHUNK, CHUNK) == pattern(2)


def test_slots_are_at_pages(arena):
    for index in range(6):
        slot = arena.host_slot(index * CHUNK, 100)
        assert np.frombuffer(slot, np.uint8).ctypes.data % 4096 == 0
        del slot
        arena.failed(index * CHUNK)


@pytest.mark.parametrize("is_pinned", [False, True])
def test_written_bytes_are_there_after_a_synchronize(arena, is_pinned):
    data = memoryview(bytearray(pattern(5, 5 * CHUNK)))
    unpin = arena.pin(data) if is_pinned else lambda: None
    for index in range(5):
        start = index * CHUNK
        arena.write(start, data[start : start + CHUNK].toreadonly())
        if not is_pinned:
            data[start : start + CHUNK] = bytes(CHUNK)  # It may be changed.
    arena.synchronize()
    unpin()
    for index in range(5):
        expected = pattern(5, 5 * CHUNK)[index * CHUNK : (index + 1) * CHUNK]
        assert arena.read(index * CHUNK, CHUNK) == expected


@pytest.mark.parametrize("size_bytes", [0, 1, CHUNK - 1, CHUNK, 3 * CHUNK + 5])
def test_the_digest_is_that_of_the_bytes(arena, size_bytes):
    data = pattern(7, 16 * CHUNK)
    for index in range(16):
        receive(arena, index * CHUNK, data[index * CHUNK : (index + 1) * CHUNK])
    for first in (0, 2 * CHUNK):
        expected = digest_of(data[first : first + size_bytes])
        assert arena.digest(first, size_bytes) == expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("offset_bytes", [0, 256, CHUNK - 256])
def test_a_view_aliases_the_memory_of_the_device(arena, dtype, offset_bytes):
    for index in range(2):
        receive(arena, index * CHUNK, pattern(index))
    arena.synchronize()
    tensor = TensorLayout("t", dtype, (2, 3, 4), 256)
    view = arena.view(offset_bytes, tensor)
    assert view.unsafe_buffer_pointer() == arena.address + offset_bytes + 256
    assert view.dtype == jnp.dtype(dtype)
    both = pattern(0) + pattern(1)
    start = offset_bytes + 256
    expected = both[start : start + tensor.size_bytes]
    assert np.asarray(view).tobytes() == expected
    assert arena.num_views == 1
    del view
    assert arena.num_views == 0


def test_a_view_is_used_by_jit_in_place(arena):
    values = np.arange(64, dtype=np.float32).reshape(8, 8)
    arena.write(0, memoryview(values.tobytes()))
    arena.synchronize()
    view = arena.view(0, TensorLayout("t", "float32", (8, 8), 0))
    np.testing.assert_array_equal(jax.jit(jnp.matmul)(view, view), values @ values)
    assert jax.device_put(view).unsafe_buffer_pointer() == arena.address
    del view


def test_executables_are_host_memory(arena):
    start = SIZES.blocks_bytes
    slot = arena.slot(start, 100)
    slot[:] = pattern(0, 100)
    arena.landed(start)
    assert arena.memory(start, 100) == pattern(0, 100)
    assert arena.read(start, 100) == pattern(0, 100)
    del slot


def test_where_the_transport_reaches_the_device_slots_are_its_memory(arena):
    arena.reach_directly()
    slot = arena.slot(CHUNK, CHUNK)
    assert isinstance(slot, DeviceSpan)
    assert slot.address == arena.address + CHUNK
    slot.write(memoryview(pattern(1)))
    arena.landed(CHUNK)
    span = arena.read(CHUNK, CHUNK)
    assert isinstance(span, DeviceSpan)
    assert span.read() == pattern(1)
    assert arena.staging == StagingCounts()


def test_who_reads_files_gets_host_memory_also_then(arena):
    arena.reach_directly()
    slot = arena.host_slot(0, CHUNK)
    slot[:] = pattern(3)
    arena.landed(0)
    assert arena.read(0, CHUNK).read() == pattern(3)
    del slot


def test_what_was_read_stays_while_somebody_refers_to_it(arena):
    for index in range(16):
        receive(arena, index * CHUNK, pattern(index))
    read = [arena.read(index * CHUNK, CHUNK) for index in range(16)]
    assert all(data.readonly for data in read)
    assert read == [pattern(index) for index in range(16)]
    assert arena.digest(0, CHUNK)  # Needs two more.
    assert read == [pattern(index) for index in range(16)]


def test_closing_is_refused_while_a_view_lives():
    arena = DeviceArena(EmulatedMemory(), SIZES)
    view = arena.view(0, TensorLayout("t", "float32", (4,), 0))
    with pytest.raises(InUseError, match="1 array views are alive"):
        arena.close(timeout_s=0)
    del view
    arena.close()


def test_closing_waits_for_copies(gate):
    device = EmulatedMemory(before_copy=gate)
    arena = DeviceArena(device, SIZES)
    receive(arena, 0, pattern(0))
    closer = threading.Thread(target=arena.close)
    closer.start()
    gate.open()
    closer.join()
    info = device.info()
    assert info.free_bytes == info.total_bytes
    assert device.num_pinned == 0


def test_closing_is_refused_while_a_chunk_is_being_received_or_sent():
    arena = DeviceArena(EmulatedMemory(), SIZES)
    slot = arena.slot(0, CHUNK)
    with pytest.raises(InUseError, match="being received or sent"):
        arena.close()
    del slot
    arena.failed(0)
    sent = arena.read(0, CHUNK)
    with pytest.raises(InUseError, match="being received or sent"):
        arena.close()
    assert sent == bytes(CHUNK)
    del sent
    arena.close()


def test_a_view_outlives_its_dropped_arena():
    device = EmulatedMemory()
    arena = DeviceArena(device, SIZES)
    receive(arena, 0, np.full(1024, 7, np.float32).tobytes())
    arena.synchronize()
    view = arena.view(0, TensorLayout("t", "float32", (4,), 0))
    device.close()
    del arena, device
    gc.collect()
    np.testing.assert_array_equal(view, np.full(4, 7, np.float32))


def test_too_little_device_memory_is_a_clear_error():
    with pytest.raises(ConfigError, match=r"64\.0 KiB wanted and 10\.0 KiB free"):
        DeviceArena(EmulatedMemory(10 * 1024), SIZES)


def test_a_copy_that_failed_is_told_by_who_needs_its_bytes():
    def fail(number):
        raise DeviceMemoryError(f"copy {number}: the device fell off the bus")

    device = EmulatedMemory(before_copy=fail)
    arena = DeviceArena(device, SIZES)
    receive(arena, 0, pattern(0))
    with pytest.raises(DeviceMemoryError, match="fell off the bus"):
        arena.digest(0, CHUNK)
    device.close()
