"""A store on a device, told the same as one in host memory, ends up the same."""

import contextlib
import hashlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jscale.core.errors import IntegrityError
from jscale.store.arena import InUseError
from jscale.store.block_store import BlockStore, region_of
from jscale.store.device_arena import DeviceArena
from jscale.store.device_memory import DeviceMemoryError
from jscale.store.emulated_memory import EmulatedMemory
from jscale.store.host_arena import HostArena
from jscale.store.regions import RegionState

CHUNK_SIZE_BYTES = 4096
EXECUTABLES = bytes(range(256)) * 40

chunks = st.integers(0, 11)
region_numbers = st.integers(0, 2)
acts = st.one_of(
    st.tuples(st.just("slot"), chunks),
    st.tuples(st.just("host slot"), chunks),
    st.tuples(st.just("land"), chunks),
    st.tuples(st.just("land damaged"), chunks),
    st.tuples(st.just("fail"), chunks),
    st.tuples(st.just("copy in"), chunks),
    st.tuples(st.just("receive all"), region_numbers),
    st.tuples(st.just("verify"), region_numbers),
    st.tuples(st.just("load"), region_numbers),
    st.tuples(st.just("evict"), region_numbers),
    st.tuples(st.just("send"), chunks),
)


class Driven:
    """A store, and the slots that it lent."""

    def __init__(self, manifest, blocks, directory, new_arena):
        self.store = BlockStore(
            manifest, chunk_size_bytes=CHUNK_SIZE_BYTES, new_arena=new_arena
        )
        self.store.reserve_executables(len(EXECUTABLES))
        self.regions = [EXECUTABLES, *blocks]
        self.directory = directory
        self.slots = {}

    def act(self, what, number):
        """Does it if the store's words allow it; what came of it."""
        match what:
            case "slot" | "host slot":
                lend = self.store.slot if what == "slot" else self.store.host_slot
                if (slot := lend(number)) is not None:
                    self.slots[number] = slot
                return slot is not None
            case "land" | "land damaged" if number in self.slots:
                slot = self.slots.pop(number)
                slot[:] = self.data(number)
                if what == "land damaged":
                    slot[-1] ^= 1
                slot.release()
                return self.store.landed(number)
            case "fail" if number in self.slots:
                self.slots.pop(number).release()
                return self.store.failed(number)
            case "copy in":
                return self.store.copy_in(number, memoryview(self.data(number)))
            case "receive all":
                return [
                    (self.act("slot", chunk), self.act("land", chunk))
                    for chunk in self.store.chunks.chunks_of(region_of(number))
                ]
            case "verify" if self.store.state(number) is RegionState.VERIFYING:
                return told(self.store.verify, number)
            case "load" if self.is_quiet(number):
                return told(self.store.load, number, self.directory)
            case "evict" if self.store.state(number) is not RegionState.VERIFYING:
                return told(self.store.evict, number)
            case "send" if self.store.holds_chunk(number):
                return bytes(self.store.chunk_bytes(number))
        return None

    def is_quiet(self, block):
        arriving = set(self.store.chunks.chunks_of(region_of(block))) & set(self.slots)
        return self.store.state(block) is not RegionState.VERIFYING and not arriving

    def data(self, chunk):
        place = self.store.chunks.chunk(chunk)
        start = chunk - self.store.chunks.chunks_of(place.region).start
        start *= CHUNK_SIZE_BYTES
        return self.regions[place.region][start : start + place.size_bytes]

    def seen(self):
        store = self.store
        return (
            store.held_chunks(),
            [store.state(block) for block in range(3)],
            store.ready_blocks,
        )

    def published(self):
        return {
            block: [np.asarray(leaf).tobytes() for leaf in self.store.publish(block)]
            for block in self.store.ready_blocks
        }

    def close(self):
        for chunk in list(self.slots):
            self.act("fail", chunk)
        self.store.close()


def told(act, *arguments):
    try:
        return act(*arguments)
    except (IntegrityError, InUseError) as error:
        return str(error)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(script=st.lists(acts, max_size=60), num_slots=st.integers(1, 4))
def test_both_stores_say_and_hold_the_same(
    manifest, blocks, directory, script, num_slots
):
    def staged(sizes):
        return DeviceArena(EmulatedMemory(), sizes, slots_in=num_slots, slots_out=2)

    with contextlib.ExitStack() as stack:
        pair = [
            stack.enter_context(contextlib.closing(driven))
            for driven in (
                Driven(manifest, blocks, directory, HostArena),
                Driven(manifest, blocks, directory, staged),
            )
        ]
        assert pair[0].store.chunks.num_chunks == 12
        for what, number in script:
            first, second = (driven.act(what, number) for driven in pair)
            assert first == second, (what, number)
            assert pair[0].seen() == pair[1].seen()
        for driven in pair:
            for block in range(3):
                driven.act("load", block)
        first, second = (driven.published() for driven in pair)
        assert first == second
        for block, leaves in second.items():
            assert leaves[0] == blocks[block][:12000]


def test_executables_are_verified_wherever_blocks_are(manifest, blocks, directory):
    driven = Driven(
        manifest, blocks, directory, lambda s: DeviceArena(EmulatedMemory(), s)
    )
    for chunk in driven.store.chunks.chunks_of(0):
        driven.act("slot", chunk)
        driven.act("land", chunk)
    sha256 = hashlib.sha256(EXECUTABLES).hexdigest()
    assert driven.store.verified_executables(sha256) == EXECUTABLES
    driven.close()


def test_a_copy_that_cannot_begin_leaves_the_chunk_missing(manifest, blocks):
    class Broken(EmulatedMemory):
        def copy_in(self, address, data):
            raise DeviceMemoryError("the device is gone")

    store = BlockStore(
        manifest,
        chunk_size_bytes=CHUNK_SIZE_BYTES,
        new_arena=lambda sizes: DeviceArena(Broken(), sizes),
    )
    with pytest.raises(DeviceMemoryError, match="the device is gone"):
        store.copy_in(0, memoryview(blocks[0])[:CHUNK_SIZE_BYTES])
    slot = store.slot(0)
    assert slot is not None
    slot.release()
    store.failed(0)
    store.close()
