"""Blocks come from host memory where they are there, else from disk."""

import threading

import numpy as np
import pytest

from jscale.cluster.config import WorkerConfig
from jscale.cluster.local_copies import LocalCopies
from jscale.core.errors import CheckpointError, IntegrityError
from jscale.core.layout import BlockLayout, TensorLayout
from jscale.core.partition import Partition
from jscale.store import disk
from jscale.store.block_store import BlockStore
from jscale.store.manifest import Manifest, manifest_fingerprint

BLOCK_BYTES = 9 * 4096
NUM_BLOCKS = 3


@pytest.fixture
def on_disk(tmp_path):
    """The folder of a block store."""
    rng = np.random.default_rng(0)
    entries = []
    for block in Partition.of_layers((1,) * NUM_BLOCKS).blocks:
        tensor = TensorLayout("t", "float32", (1, BLOCK_BYTES // 4), 0)
        layout = BlockLayout(block, (tensor,), BLOCK_BYTES)
        data = rng.bytes(BLOCK_BYTES)
        entries.append(disk.write_block(tmp_path / "disk", layout, [[data]]))
    manifest = Manifest(
        model_name="toy",
        family="toy",
        config={},
        dtype="float32",
        blocks=tuple(entries),
    )
    disk.write_manifest(tmp_path / "disk", manifest)
    return tmp_path / "disk"


@pytest.fixture
def copies_of(tmp_path):
    """Makes what a worker of this host has, with or without host memory and disk."""

    def make(mib=1, can_load_from_disk=True):
        return LocalCopies(
            WorkerConfig(
                "w0",
                "127.0.0.1:1",
                "token",
                host_tier_dir=str(tmp_path / "memory"),
                host_tier_mib=mib,
                can_load_from_disk=can_load_from_disk,
            )
        )

    return make


def new_store(on_disk):
    return BlockStore(Manifest.load(on_disk), chunk_size_bytes=4096)


def load(copies, on_disk, directory=None):
    """A whole store; `slots` is the store itself, as it has no executables."""
    store = new_store(on_disk)
    copies.read(store, directory or on_disk, store)
    for block in range(NUM_BLOCKS):
        store.verify(block)
    return store


def watch(store):
    """Sets an event whenever a chunk lands."""
    store.landed_any = threading.Event()
    landed = store.landed

    def noted(chunk):
        region = landed(chunk)
        store.landed_any.set()
        return region

    store.landed = noted
    store.num_held = lambda: sum(byte.bit_count() for byte in store.held_chunks())


def test_the_first_worker_reads_the_disk_and_the_next_host_memory(
    on_disk, copies_of, tmp_path
):
    first = copies_of()
    assert first.in_host_memory() == ((), 0.0)
    first.keep(load(first, on_disk))
    second = copies_of(can_load_from_disk=False)
    (fingerprint,), rate = second.in_host_memory()
    assert fingerprint == manifest_fingerprint(Manifest.load(on_disk).to_bytes())
    assert rate > 0
    load(second, on_disk, tmp_path / "no such disk")


def test_what_was_evicted_meanwhile_is_read_from_disk(on_disk, copies_of, tmp_path):
    copies = copies_of()
    copies.keep(load(copies, on_disk))
    gone, *_ = (tmp_path / "memory").glob("*/block-00001.bin")
    gone.unlink()
    load(copies, on_disk)
    with pytest.raises(CheckpointError, match=r"block-00001.bin: No such file"):
        load(copies_of(can_load_from_disk=False), on_disk)


def test_a_damaged_copy_is_taken_away_and_the_disk_serves(on_disk, copies_of, tmp_path):
    copies = copies_of()
    copies.keep(load(copies, on_disk))
    damaged, *_ = (tmp_path / "memory").glob("*/block-00002.bin")
    damaged.write_bytes(bytes(BLOCK_BYTES))
    store = new_store(on_disk)
    copies.read(store, on_disk, store)
    store.verify(1)
    with pytest.raises(IntegrityError):
        store.verify(2)
    assert copies.damaged(2) == damaged
    assert not damaged.exists()
    copies.read(store, on_disk, store)
    store.verify(2)
    copies.keep(store)
    assert damaged.read_bytes() == (on_disk / "block-00002.bin").read_bytes()


def test_a_file_on_disk_that_is_damaged_is_named_and_stays(on_disk, copies_of):
    path = on_disk / "block-00000.bin"
    path.write_bytes(bytes(BLOCK_BYTES))
    copies = copies_of()
    store = new_store(on_disk)
    copies.read(store, on_disk, store)
    assert copies.damaged(0) == path
    assert path.exists()


def test_only_what_is_missing_is_read(on_disk, copies_of):
    copies = copies_of(mib=0)
    store = new_store(on_disk)
    store.load(1, on_disk)
    (on_disk / "block-00001.bin").unlink()
    copies.read(store, on_disk, store)
    store.verify(0)
    store.verify(2)
    assert copies.damaged(1) is None


def test_a_chunk_that_was_arriving_and_did_not_come_is_read_after_all(
    on_disk, copies_of
):
    copies = copies_of(mib=0)
    store = new_store(on_disk)
    watch(store)
    assert store.slot(12) is not None  # A peer is sending it.
    thread = threading.Thread(target=copies.read, args=(store, on_disk, store))
    thread.start()
    while store.num_held() < NUM_BLOCKS * 9 - 1:
        store.landed_any.wait(20)
        store.landed_any.clear()
    store.failed(12)  # The peer is lost.
    thread.join(20)
    assert not thread.is_alive()
    for block in range(NUM_BLOCKS):
        store.verify(block)


def test_closing_ends_the_wait_for_what_arrives(on_disk, copies_of):
    copies = copies_of(mib=0)
    store = new_store(on_disk)
    assert store.slot(12) is not None
    thread = threading.Thread(target=copies.read, args=(store, on_disk, store))
    thread.start()
    copies.close()
    thread.join(20)
    assert not thread.is_alive()
    store.failed(12)


def test_without_room_for_them_no_copies_are_kept(on_disk, copies_of, tmp_path):
    copies = copies_of(mib=0)
    copies.keep(load(copies, on_disk))
    assert not (tmp_path / "memory").exists()
    assert copies.in_host_memory() == ((), 0.0)
    copies.close()
