"""Files become chunks in a store, by whatever mix of direct and cached reads."""

import errno
import fcntl
import mmap
import os
import threading

import numpy as np
import pytest

from jscale.core.chunks import ChunkTable
from jscale.core.errors import CheckpointError
from jscale.store import block_file
from jscale.store.block_file import BlockFile, cached_share
from jscale.store.block_reader import BlockReader
from jscale.store.block_store import BlockStore

SIZES_BYTES = (3 * 8192, 8192 + 256, 256, 5 * 8192 - 512)


class Slots:
    """A dumb store over one page-aligned array; who claims twice is told."""

    def __init__(self, chunks):
        whole = np.empty(chunks.size_bytes + 4096, np.uint8)
        shift = -whole.ctypes.data % 4096
        self.memory = memoryview(whole)[shift : shift + chunks.size_bytes]
        self.memory[:] = bytes(chunks.size_bytes)
        self.chunks = chunks
        self.claimed = set()
        self.landings = []
        self.failures = []
        self.breaks_at = None

    def host_slot(self, chunk):
        if chunk in self.claimed:
            return None
        if chunk == self.breaks_at:
            raise RuntimeError(f"no slot for {chunk}")
        self.claimed.add(chunk)
        place = self.chunks.chunk(chunk)
        return self.memory[place.offset_bytes :][: place.size_bytes]

    def landed(self, chunk):
        self.landings.append(chunk)

    def failed(self, chunk):
        self.claimed.remove(chunk)
        self.failures.append(chunk)


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    paths = {}
    for block, size_bytes in enumerate(SIZES_BYTES):
        paths[block] = tmp_path / f"block-{block}.bin"
        paths[block].write_bytes(rng.bytes(size_bytes))
    return paths


def reader_of(files, slots, **options):
    """Of files that can be in one place only."""
    places = {block: [path] for block, path in files.items()}
    return BlockReader(slots.chunks, places, slots, **options)


def evict(path):
    """Out of the page cache, as far as the system does as it is advised."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def share_in_page_cache(path):
    with open(path, "rb") as file:
        return cached_share(file.fileno(), path.stat().st_size)


def held(slots, block):
    start = slots.chunks.region_offset_bytes(1 + block)
    return bytes(slots.memory[start : start + SIZES_BYTES[block]])


@pytest.mark.parametrize("is_cold", [False, True])
@pytest.mark.parametrize("reads_at_once", [1, 3])
@pytest.mark.parametrize("piece_bytes", [1, 8192, 1 << 20])
@pytest.mark.parametrize("chunk_size_bytes", [1000, 4096, 8192, 1 << 16])
def test_files_land_byte_for_byte(
    files, chunk_size_bytes, piece_bytes, reads_at_once, is_cold
):
    if is_cold:
        for path in files.values():
            evict(path)
    slots = Slots(ChunkTable((0, *SIZES_BYTES), chunk_size_bytes))
    options = {"piece_bytes": piece_bytes, "reads_at_once": reads_at_once}
    report = reader_of(files, slots, **options).run()
    for block, path in files.items():
        assert held(slots, block) == path.read_bytes()
    assert sorted(slots.landings) == list(range(slots.chunks.num_chunks))
    assert report.size_bytes == sum(SIZES_BYTES)
    assert report.direct_bytes <= report.size_bytes


def test_what_is_in_the_page_cache_is_read_from_there_and_all_else_directly(files):
    reports = []
    for _ in range(2):
        slots = Slots(ChunkTable((0, *SIZES_BYTES), 4096))
        reports.append(reader_of(files, slots).run())
        for path in files.values():
            evict(path)
    cached, cold = reports
    assert cached.direct_bytes == 0
    assert "of it is there" in cached.why_cached
    share = max(map(share_in_page_cache, files.values()))
    if share:
        pytest.skip("this file system keeps what it is advised to drop")
    whole_sectors = sum(size // 4096 * 4096 for size in SIZES_BYTES)
    if "O_DIRECT" not in cold.why_cached:
        assert cold.direct_bytes == whole_sectors


def test_chunks_that_came_otherwise_are_not_read(files):
    slots = Slots(ChunkTable((0, *SIZES_BYTES), 4096))
    others = {1, 4, 5, 6}
    slots.claimed |= others
    reader = reader_of(files, slots)
    reader.run()
    assert set(slots.landings) == set(range(slots.chunks.num_chunks)) - others
    assert [reader.file_of(block) for block in files] == [
        None,
        None,
        files[2],
        files[3],
    ]
    for chunk in others:
        place = slots.chunks.chunk(chunk)
        assert not any(slots.memory[place.offset_bytes :][: place.size_bytes])


def test_only_the_blocks_asked_for_are_read_in_that_order(files):
    slots = Slots(ChunkTable((0, *SIZES_BYTES), 4096))
    some = {3: files[3], 0: files[0]}
    reader_of(some, slots, reads_at_once=1, piece_bytes=4096).run()
    chunks = slots.chunks
    assert slots.landings == [*chunks.chunks_of(4), *chunks.chunks_of(1)]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EFAULT, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_read_directly_or_map_is_read_all_the_same(
    files, monkeypatch, code
):
    class NoMaps:
        PAGESIZE, ACCESS_COPY = mmap.PAGESIZE, mmap.ACCESS_COPY

        @staticmethod
        def mmap(*_, **__):
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    real = os.preadv

    def preadv(descriptor, views, offset):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(code, os.strerror(code))
        return real(descriptor, views, offset)

    monkeypatch.setattr(block_file, "mmap", NoMaps)
    monkeypatch.setattr(os, "preadv", preadv)
    slots = Slots(ChunkTable((0, *SIZES_BYTES), 4096))
    report = reader_of(files, slots).run()
    assert [held(slots, block) for block in files] == [
        path.read_bytes() for path in files.values()
    ]
    assert report.direct_bytes == 0
    assert report.why_cached


@pytest.mark.parametrize("cut_bytes", [0, 100, 8192, 16384 + 4096])
@pytest.mark.parametrize("is_cold", [False, True])
def test_a_file_that_is_cut_short_while_it_is_read_is_named(files, cut_bytes, is_cold):
    if is_cold:
        evict(files[0])
    file = BlockFile(files[0], SIZES_BYTES[0])
    os.truncate(files[0], cut_bytes)
    into = np.empty(SIZES_BYTES[0] + 4096, np.uint8)
    shift = -into.ctypes.data % 4096
    view = memoryview(into)[shift : shift + SIZES_BYTES[0]]
    with pytest.raises(CheckpointError, match=f"{cut_bytes} bytes, the manifest says"):
        file.read(0, [view])
    file.close()


def test_a_block_is_read_from_the_first_place_that_has_it(files, tmp_path):
    fast = tmp_path / "fast"
    fast.mkdir()
    places = {block: [fast / path.name, path] for block, path in files.items()}
    (fast / files[0].name).write_bytes(bytes(SIZES_BYTES[0]))
    (fast / files[1].name).write_bytes(b"cut short")
    slots = Slots(ChunkTable((0, *SIZES_BYTES), 4096))
    reader = BlockReader(slots.chunks, places, slots)
    report = reader.run()
    assert held(slots, 0) == bytes(SIZES_BYTES[0])
    assert [held(slots, i) for i in (1, 2)] == [files[i].read_bytes() for i in (1, 2)]
    assert [reader.file_of(i) for i in (0, 1)] == [fast / files[0].name, files[1]]
    assert report.folders == (str(tmp_path), str(fast))


def test_a_file_that_fails_gives_its_slots_back(files):
    files[2].unlink()
    slots = Slots(ChunkTable((0, *SIZES_BYTES), 4096))
    with pytest.raises(CheckpointError, match=r"block-2.bin: No such file"):
        reader_of(files, slots, reads_at_once=1).run()
    assert slots.failures == list(slots.chunks.chunks_of(3))
    assert sorted(slots.landings) == sorted(slots.claimed)
    assert not slots.claimed.intersection(slots.chunks.chunks_of(4))


def test_a_store_that_fails_gets_back_what_it_gave(files):
    slots = Slots(ChunkTable((0, *SIZES_BYTES), 4096))
    slots.breaks_at = 2
    with pytest.raises(RuntimeError, match="no slot for 2"):
        reader_of(files, slots, reads_at_once=1).run()
    assert not slots.claimed
    assert slots.landings == []


def test_a_stopped_reader_ends_what_it_began_and_another_goes_on(files):
    slots = Slots(ChunkTable((0, *SIZES_BYTES), 4096))
    reader = reader_of(files, slots, piece_bytes=4096)
    landed = slots.landed

    def landed_and_stop(chunk):
        landed(chunk)
        reader.stop()

    slots.landed = landed_and_stop
    report = reader.run()
    assert 0 < len(slots.landings) < slots.chunks.num_chunks
    assert set(slots.landings) == slots.claimed
    slots.landed = landed
    rest = reader_of(files, slots).run()
    assert report.size_bytes + rest.size_bytes == sum(SIZES_BYTES)
    assert held(slots, 3) == files[3].read_bytes()


def test_a_store_is_filled_from_disk_and_from_elsewhere_at_once(directory, manifest):
    """Two readers stand for a reader and a multicast: each chunk comes by one."""
    store = BlockStore(manifest, chunk_size_bytes=4096)
    files = {i: [directory / e.file] for i, e in enumerate(manifest.blocks)}
    readers = [BlockReader(store.chunks, files, store) for _ in range(2)]
    reports = []
    threads = [
        threading.Thread(target=lambda r=reader: reports.append(r.run()))
        for reader in readers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(report.size_bytes for report in reports) == manifest.size_bytes
    for block in range(manifest.num_blocks):
        store.verify(block)
    store.close()
