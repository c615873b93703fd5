"""A worker that reads from disk sends on what it has read, chunk by chunk."""

import hashlib
import queue
import threading

import numpy as np
import pytest

from jscale.cluster import worker_events as events
from jscale.cluster.messages import Bundle, JoinMulticast, Member
from jscale.cluster.peers import Peers
from jscale.cluster.traffic import Traffic
from jscale.cluster.transfer import Transfers, is_outdated
from jscale.core.chunks import ChunkTable
from jscale.core.errors import CheckpointError, IntegrityError
from jscale.core.ids import PlanId, WorkerId
from jscale.core.layout import BlockLayout, TensorLayout
from jscale.core.partition import Partition
from jscale.store import disk
from jscale.store.block_reader import BlockReader
from jscale.store.block_store import BlockStore
from jscale.store.manifest import Manifest
from jscale.transport.base import Hello
from jscale.transport.registry import open_transport

PATIENCE_S = 20.0
CHUNK_BYTES = 4096
BLOCK_BYTES = 5 * CHUNK_BYTES + 256
CHUNKS_PER_BLOCK = 6
NUM_BLOCKS = 3
BUNDLE = bytes(range(256)) * 40
BUNDLE_NAME = Bundle(hashlib.sha256(BUNDLE).hexdigest(), len(BUNDLE), "f")


@pytest.fixture
def manifest(tmp_path):
    """Of a model whose blocks are on disk."""
    rng = np.random.default_rng(0)
    entries = []
    for block in Partition.of_layers((1,) * NUM_BLOCKS).blocks:
        data = rng.bytes(BLOCK_BYTES)
        tensor = TensorLayout("t", "float32", (1, BLOCK_BYTES // 4), 0)
        layout = BlockLayout(block, (tensor,), BLOCK_BYTES)
        entries.append(disk.write_block(tmp_path, layout, [[data]]))
    return Manifest(
        model_name="toy",
        family="toy",
        config={},
        dtype="float32",
        blocks=tuple(entries),
    )


class Worker:
    """A store, a data plane, and what the state machine is told."""

    def __init__(self, name, manifest):
        self.name = WorkerId(name)
        self.store = BlockStore(manifest, chunk_size_bytes=CHUNK_BYTES)
        self.transport = open_transport("mem://0", Hello(self.name, b"secret"))
        self.peers = Peers(
            self.transport, deliver=lambda *_: None, lose=lambda peer: None
        )
        listener = self.transport.listen("mem://0", self.peers)
        self.member = Member(self.name, listener.address)
        self.told = queue.Queue()
        self.transfers = Transfers(
            self.name, self.peers, self.told.put, Traffic(), self.told.put
        )
        self.slots = self.transfers.slots_for_files(self.store)

    def join(self, command):
        self.transfers.start(command, self.store)

    def reader(self, directory, slots=None):
        manifest = self.store.manifest
        files = {i: [directory / e.file] for i, e in enumerate(manifest.blocks)}
        chunks = ChunkTable((0, *manifest.block_sizes_bytes), CHUNK_BYTES)
        return BlockReader(
            chunks, files, slots or self.slots, piece_bytes=1, reads_at_once=1
        )

    def await_event(self, kind):
        while True:
            event = self.told.get(timeout=PATIENCE_S)
            if isinstance(event, kind):
                return event

    def await_whole(self, plan):
        over = self.await_event(events.TransferOver)
        assert over == events.TransferOver(PlanId(plan), 0)
        for block in range(NUM_BLOCKS):
            self.store.verify(block)

    def num_held(self):
        return sum(bin(byte).count("1") for byte in self.store.held_chunks())

    def close(self):
        self.transfers.close()
        self.peers.close()
        self.transport.close()


@pytest.fixture
def workers(manifest):
    made = [Worker(name, manifest) for name in ("w0", "w1", "w2")]
    yield made
    for worker in made:
        worker.close()


def join(workers, plan, bundle=None):
    group = tuple(worker.member for worker in workers)
    command = JoinMulticast(PlanId(plan), "binomial", (group,), bundle=bundle)
    for worker in workers:
        worker.join(command)


class Gated:
    """Slots of a slow disk: a chunk is read when the others have the one before."""

    def __init__(self, slots, others):
        self.slots, self.others = slots, others
        self.num_read = 0
        self.failed_chunks = []

    def host_slot(self, chunk):
        for worker in self.others:
            while worker.num_held() < self.num_read:
                worker.landed_any.wait(PATIENCE_S)
                worker.landed_any.clear()
        return self.slots.host_slot(chunk)

    def landed(self, chunk):
        self.num_read += 1
        self.slots.landed(chunk)

    def failed(self, chunk):
        self.failed_chunks.append(chunk)
        self.slots.failed(chunk)


def watch(worker):
    """Sets an event whenever a chunk lands at a worker."""
    worker.landed_any = threading.Event()
    landed = worker.store.landed

    def noted(chunk):
        region = landed(chunk)
        worker.landed_any.set()
        return region

    worker.store.landed = noted


def test_others_have_each_chunk_before_the_next_is_read(workers, tmp_path):
    """With a source that sends whole blocks, or itself whole, this would never end."""
    reading, *others = workers
    for worker in others:
        watch(worker)
    join(workers, 1)
    reading.reader(tmp_path, Gated(reading.slots, others)).run()
    for worker in workers:
        worker.await_whole(1)


def test_a_plan_with_executables_follows_while_a_disk_is_read(workers, tmp_path):
    """Numbers of chunks shift under the reader; none lands in another's place."""
    reading, *others = workers
    slots = Gated(reading.slots, [])
    landed = slots.landed

    def landed_and_join(chunk):
        landed(chunk)
        if slots.num_read == 8:
            reading.transfers.place_executables(
                reading.store, BUNDLE, BUNDLE_NAME.sha256
            )
            join(workers, 2, BUNDLE_NAME)

    slots.landed = landed_and_join
    join(workers, 1)
    reading.reader(tmp_path, slots).run()
    for worker in others:
        assert worker.await_event(events.RegionFilled)
    for worker in workers:
        while (over := worker.await_event(events.TransferOver)).plan != 2:
            pass
        assert over.missing_chunks == 0
        for block in range(NUM_BLOCKS):
            worker.store.verify(block)
    for worker in others:
        assert worker.store.verified_executables(BUNDLE_NAME.sha256) == BUNDLE


def test_a_reader_sends_beside_one_that_serves_and_is_sent_executables(
    workers, tmp_path
):
    """Two sub-groups: w0 holds all, w1 reads; w2 gets everything from w1."""
    serving, reading, target = workers
    serving.reader(tmp_path).run()
    serving.transfers.place_executables(serving.store, BUNDLE, BUNDLE_NAME.sha256)
    watch(target)
    command = JoinMulticast(
        PlanId(1),
        "binomial",
        ((reading.member, target.member),),
        spares=(serving.member,),
        bundle=BUNDLE_NAME,
        lacking=(reading.name,),
    )
    for worker in workers:
        worker.join(command)
    slots = Gated(reading.slots, [target])
    slots.num_read = len(target.store.chunks.chunks_of(0))
    reading.reader(tmp_path, slots).run()
    for worker in workers:
        worker.await_whole(1)
        assert worker.store.verified_executables(BUNDLE_NAME.sha256) == BUNDLE


def test_what_comes_from_a_peer_is_not_read_and_the_other_way_round(workers, tmp_path):
    """A target reads its own copy as well: each chunk comes once, by one way."""
    source, reading, _ = workers
    source.reader(tmp_path).run()
    num_chunks = NUM_BLOCKS * CHUNKS_PER_BLOCK
    landings = []
    landed = reading.store.landed

    def noted(chunk):
        landings.append(chunk)
        return landed(chunk)

    reading.store.landed = noted
    thread = threading.Thread(target=reading.reader(tmp_path).run)
    thread.start()
    join(workers[:2], 1)
    thread.join()
    reading.await_whole(1)
    assert sorted(landings) == list(range(num_chunks))


def test_a_chunk_that_cannot_be_read_is_asked_of_a_peer(workers, tmp_path):
    """The peer has sent it already: it was dropped, as it was being read."""
    source, reading, _ = workers
    source.reader(tmp_path).run()
    taken = reading.slots.host_slot(7)
    assert taken is not None
    join(workers[:2], 1)
    while reading.num_held() < NUM_BLOCKS * CHUNKS_PER_BLOCK - 1:
        reading.await_event(events.TransferAdvanced | events.RegionFilled)
    reading.slots.failed(7)
    reading.await_whole(1)


def test_a_disk_that_fails_leaves_what_was_sent_on(workers, tmp_path):
    reading, *others = workers
    (tmp_path / "block-00001.bin").unlink()
    join(workers, 1)
    with pytest.raises(CheckpointError, match=r"block-00001.bin: No such file"):
        reading.reader(tmp_path).run()
    for worker in others:
        assert worker.await_event(events.RegionFilled) == events.RegionFilled(1)
        worker.store.verify(0)
        assert not worker.store.holds(1)


def test_what_was_damaged_on_disk_is_computed_with_by_nobody(workers, tmp_path):
    """It is sent on before anybody can know; everyone's digest catches it."""
    reading, *others = workers
    path = tmp_path / "block-00002.bin"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    join(workers, 1)
    reading.reader(tmp_path).run()
    for worker in workers:
        over = worker.await_event(events.TransferOver)
        assert over.missing_chunks == 0
        worker.store.verify(0)
        worker.store.verify(1)
        with pytest.raises(IntegrityError, match="block 2 of toy: digest"):
            worker.store.verify(2)
        worker.transfers.stop_all()
    # One has a copy that is right: the others get that block, and nothing else.
    data[5000] ^= 1
    path.write_bytes(data)
    fixed, *rest = others
    join([fixed, reading, *rest], 2)
    report = fixed.reader(tmp_path).run()
    assert report.size_bytes == BLOCK_BYTES
    for worker in workers:
        while worker.await_event(events.TransferOver).plan != 2:
            pass
        worker.store.verify(2)


def test_executables_that_made_room_before_they_were_told_of_are_none(workers):
    """Their event is on its way while a plan with others is joined."""
    source, target, _ = workers
    source.transfers.place_executables(source.store, BUNDLE, BUNDLE_NAME.sha256)
    join([source, target], 1, BUNDLE_NAME)
    filled = target.await_event(events.RegionFilled)
    assert filled == events.RegionFilled(0)
    assert not is_outdated(filled, target.store)
    other = Bundle("0" * 64, len(BUNDLE), "f")
    group = (source.member, target.member)
    target.join(JoinMulticast(PlanId(2), "binomial", (group,), bundle=other))
    assert is_outdated(filled, target.store)
    assert not is_outdated(events.RegionFilled(1), target.store)
