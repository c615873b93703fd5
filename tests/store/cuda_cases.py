"""What `test_cuda_memory` runs where `fake_cuda.c` is the driver."""

import ctypes
import gc
import mmap
import os
import threading

import numpy as np
import pytest

from jscale.store.arena import ArenaSizes
from jscale.store.cuda_memory import CudaMemory, load_driver
from jscale.store.device_arena import DeviceArena
from jscale.store.device_memory import DeviceMemoryError
from jscale.store.digest import digest_of
from jscale.store.dlpack import CPU
from tests.store.loading import assert_a_model_loads

CHUNK = 8192
SIZES = ArenaSizes(blocks_bytes=32 * CHUNK, host_bytes=CHUNK, chunk_bytes=CHUNK)


@pytest.fixture
def device():
    return CudaMemory(load_driver())


@pytest.fixture
def arena(device):
    arena = DeviceArena(device, SIZES, slots_in=4, slots_out=2)
    yield arena
    gc.collect()
    arena.close()
    left = CudaMemory(load_driver()).info()
    assert left.free_bytes == left.total_bytes


def pattern(seed, size_bytes=CHUNK):
    return np.random.default_rng(seed).bytes(size_bytes)


def receive(arena, index, data):
    slot = arena.slot(index * CHUNK, len(data))
    slot[:] = data
    del slot
    arena.landed(index * CHUNK)


def test_it_says_what_it_is(device):
    assert device.name == "Fake GPU"
    assert device.dlpack_device == (2, 0)
    info = device.info()
    assert (info.free_bytes, info.total_bytes) == (1 << 30, 1 << 30)
    device.close()


def test_memory_starts_at_pages_and_is_given_back(device):
    addresses = [device.allocate(size) for size in (1, 4096, 100_000)]
    assert all(address % 65536 == 0 for address in addresses)
    for address in addresses:
        device.free(address)
    assert device.info().free_bytes == 1 << 30
    device.close()


def test_more_than_there_is_is_a_clear_error(device):
    with pytest.raises(DeviceMemoryError, match=r"out of memory: 2\.0 GiB wanted"):
        device.allocate(2 << 30)
    device.close()


def test_a_copy_is_done_when_it_was_waited_for_and_in_order(device):
    host = memoryview(mmap.mmap(-1, 2 * CHUNK))
    device.pin(host)
    address = device.allocate(CHUNK)
    first, second = host[:CHUNK], host[CHUNK:]
    first[:], second[:] = pattern(1), pattern(2)
    device.copy_in(address, first)
    latest = device.copy_in(address, second)
    assert not latest.is_done
    latest.wait()
    assert latest.is_done
    first[:] = bytes(CHUNK)
    device.copy_out(first, address).wait()
    assert first == pattern(2)
    device.unpin(host)
    device.free(address)
    device.close()


def test_a_copy_out_waits_for_the_copies_in_before_it(device):
    host = memoryview(mmap.mmap(-1, 9 * CHUNK))
    device.pin(host)
    address = device.allocate(8 * CHUNK)
    for index in range(8):
        piece = host[index * CHUNK : (index + 1) * CHUNK]
        piece[:] = pattern(index)
        device.copy_in(address + index * CHUNK, piece)
    last = host[8 * CHUNK :]
    for index in reversed(range(8)):
        device.copy_out(last, address + index * CHUNK).wait()
        assert last == pattern(index)
    device.unpin(host)
    device.free(address)
    device.close()


def test_events_are_used_again(device):
    address = device.allocate(CHUNK)
    data = memoryview(bytearray(CHUNK))
    for _ in range(10_000):  # More than the driver has events.
        device.copy_in(address, data).wait()
    device.free(address)
    device.close()


def test_what_was_staged_is_what_is_read_and_hashed(arena):
    for index in range(32):
        receive(arena, index, pattern(index))
    everything = b"".join(pattern(index) for index in range(32))
    for index in (31, 0, 17):
        assert arena.read(index * CHUNK, CHUNK) == pattern(index)
    assert arena.digest(0, len(everything)) == digest_of(everything)
    assert arena.staging.num_waits > 0  # There are 4 slots.


def test_pinned_memory_is_copied_from_where_it_is(arena):
    data = memoryview(bytes(pattern(9, 4 * CHUNK)))
    unpin = arena.pin(data)
    for index in range(4):
        arena.write(index * CHUNK, data[index * CHUNK : (index + 1) * CHUNK])
    assert arena.digest(0, len(data)) == digest_of(data)
    unpin()


def test_threads_share_a_device(arena):
    def work(first):
        for index in range(first, 32, 4):
            receive(arena, index, pattern(index))

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(32):
        assert arena.read(index * CHUNK, CHUNK) == pattern(index)


def test_all_blocks_are_exported_for_other_devices(arena):
    region = arena.device_memory
    assert region.address % 65536 == 0
    assert region.nbytes == 32 * CHUNK
    descriptor = arena.export_dmabuf()
    os.close(descriptor)


class Visible(CudaMemory):
    """The driver's memory as JAX on a CPU can compute in: here it is host memory."""

    @property
    def dlpack_device(self):
        return CPU


def test_a_model_comes_from_disk_to_views_over_the_driver(tmp_path):
    assert_a_model_loads(
        tmp_path,
        lambda sizes: DeviceArena(
            Visible(load_driver()), sizes, slots_in=5, slots_out=2
        ),
        size_bytes=1 << 20,
    )


def num_flushes():
    return ctypes.CDLL("libcuda.so.1").num_flushes()


def test_what_an_rdma_device_wrote_is_flushed_before_it_is_read(arena):
    arena.reach_directly()
    before = num_flushes()
    arena.read(0, CHUNK).read()
    assert num_flushes() == before + 1
    arena.digest(0, CHUNK)
    assert num_flushes() == before + 2


def test_a_gpu_that_orders_such_writes_is_spared_the_flush(monkeypatch):
    monkeypatch.setenv("FAKE_ORDERED", "1")
    device = CudaMemory(load_driver())
    device.settle()
    device.flush()
    device.close()


def test_a_driver_without_dmabuf_is_a_reason(arena, monkeypatch):
    monkeypatch.setenv("FAKE_NO_DMABUF", "1")
    with pytest.raises(DeviceMemoryError, match="the driver offers no DMA-BUF"):
        arena.export_dmabuf()


def test_a_gpu_that_is_lost_is_named(arena, monkeypatch):
    receive(arena, 0, pattern(0))
    monkeypatch.setenv("FAKE_LOST", "1")
    with pytest.raises(
        DeviceMemoryError,
        match="Fake GPU: cuMemcpyDtoHAsync: CUDA_ERROR_LAUNCH_FAILED: it went wrong",
    ):
        arena.read(0, CHUNK)


def test_no_gpu_is_a_reason(monkeypatch):
    monkeypatch.setenv("FAKE_NO_GPU", "1")
    with pytest.raises(DeviceMemoryError, match="the CUDA driver shows no GPU"):
        load_driver()
