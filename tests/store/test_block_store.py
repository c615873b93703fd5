import gc
import hashlib
import threading

import numpy as np
import pytest

from jscale.core.errors import CheckpointError, ConfigError, IntegrityError
from jscale.store.arena import InUseError
from jscale.store.block_store import BlockStore, region_of
from jscale.store.device_arena import DeviceArena
from jscale.store.emulated_memory import EmulatedMemory
from jscale.store.host_arena import HostArena
from jscale.store.regions import RegionState

CHUNK_SIZE_BYTES = 5000


def staged_arena(sizes):
    return DeviceArena(EmulatedMemory(), sizes, slots_in=2, slots_out=2)


@pytest.fixture(params=["host", "staged"])
def store(request, manifest):
    new_arena = {"host": HostArena, "staged": staged_arena}[request.param]
    store = BlockStore(manifest, chunk_size_bytes=CHUNK_SIZE_BYTES, new_arena=new_arena)
    yield store
    gc.collect()
    store.close()


def receive(store, chunk, data):
    """Puts the bytes of a region's chunk where they go, as a connection would."""
    first = store.chunks.chunks_of(store.chunks.chunk(chunk).region).start
    start = (chunk - first) * store.chunks.chunk_size_bytes
    slot = store.slot(chunk)
    if slot is None:
        return None
    slot[:] = data[start : start + len(slot)]
    return store.landed(chunk)


def receive_all(store, region, data):
    return [receive(store, chunk, data) for chunk in store.chunks.chunks_of(region)]


def test_a_block_goes_from_missing_to_ready(store, blocks):
    first, *_, last = store.chunks.chunks_of(region_of(1))
    assert store.state(1) is RegionState.MISSING
    assert receive(store, last, blocks[1]) is None
    assert store.state(1) is RegionState.FILLING
    assert receive(store, first, blocks[1]) is None
    assert receive(store, first + 1, blocks[1]) == region_of(1)
    assert store.state(1) is RegionState.VERIFYING
    assert not store.holds(1)
    store.verify(1)
    assert store.holds(1)
    assert store.ready_blocks == (1,)


def test_published_leaves_are_the_arena_itself(store, manifest, blocks):
    receive_all(store, region_of(2), blocks[2])
    store.verify(2)
    leaves = store.publish(2)
    offset = store.chunks.region_offset_bytes(region_of(2))
    tensors = manifest.blocks[2].layout.tensors
    for leaf, tensor in zip(leaves, tensors, strict=True):
        start = tensor.offset_bytes
        place = leaf.unsafe_buffer_pointer() - store.arena.address
        assert place == offset + start
        assert leaf.shape == tensor.shape
        assert leaf.dtype.name == tensor.dtype
        data = blocks[2][start : start + tensor.size_bytes]
        assert np.asarray(leaf).tobytes() == data


def test_a_held_chunk_has_no_slot(store, blocks):
    (chunk, *_) = store.chunks.chunks_of(region_of(0))
    receive(store, chunk, blocks[0])
    assert store.slot(chunk) is None


def test_a_slot_belongs_to_one_writer_until_it_fails(store, blocks):
    chunk = store.chunks.chunks_of(region_of(1)).start
    assert store.slot(chunk) is not None
    assert store.slot(chunk) is None
    with pytest.raises(InUseError, match="1 arriving chunks"):
        store.evict(1)
    store.failed(chunk)
    assert not store.holds_chunk(chunk)
    receive(store, chunk, blocks[1])
    assert store.holds_chunk(chunk)


def test_a_chunk_can_be_sent_on_before_its_block_is_whole(store, blocks):
    chunk = store.chunks.chunks_of(region_of(1)).start
    assert not store.holds_chunk(chunk)
    receive(store, chunk, blocks[1])
    assert store.holds_chunk(chunk)
    assert store.chunk_bytes(chunk) == blocks[1][:CHUNK_SIZE_BYTES]
    assert store.chunk_bytes(chunk).readonly


def test_the_bitmap_names_every_held_chunk(store, blocks):
    receive_all(store, region_of(2), blocks[2])
    receive(store, 1, blocks[0])
    bitmap = store.held_chunks()
    named = {i for i in range(8 * len(bitmap)) if bitmap[i // 8] >> i % 8 & 1}
    assert named == {1, *store.chunks.chunks_of(region_of(2))}


def test_wrong_bytes_are_dropped_and_can_come_again(store, blocks):
    wrong = bytearray(blocks[0])
    wrong[6000] ^= 1
    receive_all(store, region_of(0), bytes(wrong))
    with pytest.raises(IntegrityError, match=r"block 0 of toy: digest .* expected"):
        store.verify(0)
    assert store.state(0) is RegionState.MISSING
    assert store.held_chunks() == bytes(len(store.held_chunks()))
    assert receive_all(store, region_of(0), blocks[0])[-1] == region_of(0)
    store.verify(0)
    assert store.holds(0)


def test_exactly_one_receiver_is_told_that_a_block_is_full(store, blocks):
    told = []

    def run():
        told.extend(receive_all(store, region_of(1), blocks[1]))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [region for region in told if region is not None] == [region_of(1)]


def test_a_block_in_use_is_not_evicted(store, directory):
    store.load(0, directory)
    leaves = store.publish(0)
    with pytest.raises(InUseError, match="block 0 of toy is in use"):
        store.evict(0)
    del leaves
    with store.acquired(0), pytest.raises(InUseError, match="1 readers"):
        store.evict(0)
    store.evict(0)
    assert store.state(0) is RegionState.MISSING


def test_an_evicted_block_can_be_loaded_again(store, directory, blocks):
    store.load(0, directory)
    store.evict(0)
    store.load(0, directory)
    (kernel, _) = store.publish(0)
    assert np.asarray(kernel).tobytes() == blocks[0][:12000]


def test_loading_a_ready_block_does_nothing(store, directory):
    store.load(0, directory)
    (directory / "block-00000.bin").unlink()
    store.load(0, directory)
    assert store.holds(0)


def test_a_corrupted_file_is_named_and_its_block_stays_missing(store, directory):
    path = directory / "block-00002.bin"
    data = bytearray(path.read_bytes())
    data[100] ^= 4
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"block-00002.bin is corrupted: block 2"):
        store.load(2, directory)
    assert store.state(2) is RegionState.MISSING


def test_a_missing_file_is_named_with_its_block(store, directory):
    (directory / "block-00002.bin").unlink()
    with pytest.raises(CheckpointError, match=r"block 2 of toy: .*block-00002.bin"):
        store.load(2, directory)
    assert store.state(2) is RegionState.MISSING


def test_executables_go_from_one_store_to_another(store, manifest, directory):
    bundle = bytes(range(256)) * 50
    sha256 = hashlib.sha256(bundle).hexdigest()
    source = BlockStore(manifest, chunk_size_bytes=CHUNK_SIZE_BYTES)
    source.load(1, directory)
    source.place_executables(bundle)
    assert source.holds(1)
    store.reserve_executables(len(bundle))
    assert store.chunks == source.chunks
    for chunk in store.chunks.chunks_of(0):
        slot = store.slot(chunk)
        slot[:] = source.chunk_bytes(chunk)
        region = store.landed(chunk)
    assert region == 0
    assert store.verified_executables(sha256) == bundle
    del slot
    source.close()


def test_other_executables_than_promised_are_dropped(store):
    store.reserve_executables(10)
    slot = store.slot(0)
    slot[:] = b"0123456789"
    assert store.landed(0) == 0
    with pytest.raises(IntegrityError, match="toy: executables: digest"):
        store.verified_executables("0" * 64)
    assert not store.holds_chunk(0)
    del slot


def test_executables_that_made_room_for_others_are_not_there_any_more(store):
    bundle = bytes(range(256)) * 33
    sha256 = hashlib.sha256(bundle).hexdigest()
    store.place_executables(bundle)
    assert store.verified_executables(sha256) == bundle
    store.reserve_executables(0)
    store.reserve_executables(len(bundle))
    assert store.verified_executables(sha256) is None


def test_executables_too_large_for_the_arena_are_refused(manifest):
    store = BlockStore(manifest, executables_size_bytes_max=1024)
    with pytest.raises(ConfigError, match="compile for fewer buckets"):
        store.place_executables(bytes(5000))
    store.close()


def test_blocks_stay_where_they_are_when_executables_change(store, directory):
    store.load(2, directory)
    before = store.chunks.region_offset_bytes(region_of(2))
    leaves = store.publish(2)
    store.place_executables(bytes(5000))
    assert store.chunks.region_offset_bytes(region_of(2)) == before
    assert store.holds(2)
    del leaves
