"""Blocks multicast between devices: into their memory where the transport reaches it.

With RDMA the emulated device is reached as a GPU is by nvidia-peermem: at its address.
"""

import gc
import queue

import numpy as np
import pytest

from jscale.checkpoint.random_model import config_of_size, write_random_model
from jscale.cluster import data_path
from jscale.cluster import worker_events as events
from jscale.cluster.messages import JoinMulticast, Member
from jscale.cluster.peers import Peers
from jscale.cluster.traffic import Traffic
from jscale.cluster.transfer import Transfers
from jscale.core.errors import TransportError
from jscale.core.ids import PlanId, WorkerId
from jscale.core.units import KIB, MIB
from jscale.store.arena import StagingCounts
from jscale.store.block_reader import BlockReader
from jscale.store.block_store import BlockStore
from jscale.store.device_arena import DeviceArena
from jscale.store.emulated_memory import EmulatedMemory
from jscale.store.host_arena import HostArena

PATIENCE_S = 60.0
CHUNK_BYTES = 64 * KIB


class HostOnly:
    """A transport that is told of host memory and reaches no device."""

    def __init__(self, transport):
        self.register = transport.register

    def register_device(self, region, dmabuf):
        raise TransportError("the test says so")


class Worker:
    def __init__(self, name, net, manifest, new_arena, *, reaches_devices=True):
        self.name = WorkerId(name)
        self.store = BlockStore(
            manifest, chunk_size_bytes=CHUNK_BYTES, new_arena=new_arena
        )
        transport = net.open(name)
        self.peers = Peers(transport, deliver=lambda *_: None, lose=lambda _: None)
        self.member = Member(
            self.name, transport.listen(net.any_address, self.peers).address
        )
        self.path = data_path.register(
            self.store.arena, transport if reaches_devices else HostOnly(transport)
        )
        self.told = queue.Queue()
        self.transfers = Transfers(
            self.name, self.peers, self.told.put, Traffic(), self.told.put
        )

    def await_whole(self):
        while not isinstance(
            event := self.told.get(timeout=PATIENCE_S), events.TransferOver
        ):
            pass
        assert event.missing_chunks == 0
        for block in range(self.store.manifest.num_blocks):
            self.store.verify(block)

    def close(self):
        self.transfers.close()
        self.peers.close()


@pytest.fixture
def model(tmp_path):
    config = config_of_size(2 * MIB, num_layers=4, dtype="bfloat16")
    return write_random_model(tmp_path, config, dtype="bfloat16", num_blocks=3)


@pytest.fixture
def make(net, model):
    made = []

    def make(new_arena, **options):
        worker = Worker(f"w{len(made)}", net, model, new_arena, **options)
        made.append(worker)
        return worker

    yield make
    for worker in made:
        worker.close()
    net.close()  # Devices let go of memory before it is given back.
    gc.collect()
    for worker in made:
        worker.store.close()


def device(**options):
    return lambda sizes: DeviceArena(EmulatedMemory(), sizes, **options)


def fill(worker, folder):
    """As a worker that reads from disk, and has executables to send."""
    store = worker.store
    files = {i: [folder / e.file] for i, e in enumerate(store.manifest.blocks)}
    BlockReader(store.chunks, files, store).run()
    for block in range(store.manifest.num_blocks):
        store.verify(block)


def multicast(workers):
    group = tuple(worker.member for worker in workers)
    command = JoinMulticast(PlanId(1), "binomial", (group,))
    for worker in workers:
        worker.transfers.start(command, worker.store)
    for worker in workers[1:]:
        worker.await_whole()


def weights(worker):
    return [
        np.asarray(leaf).tobytes()
        for block in range(worker.store.manifest.num_blocks)
        for leaf in worker.store.publish(block)
    ]


@pytest.mark.parametrize("reaches_devices", [True, False])
def test_a_model_goes_from_device_to_devices_and_hosts(
    make, net, tmp_path, reaches_devices
):
    source, near, far = (
        make(device(), reaches_devices=reaches_devices) for _ in range(3)
    )
    host = make(HostArena)
    fill(source, tmp_path)
    multicast([source, near, host, far])
    is_direct = reaches_devices and net.scheme == "rdma"
    for worker in (source, near, far):
        assert worker.path.startswith("peermem" if is_direct else "staged: ")
    assert host.path == "host"
    expected = weights(source)
    for worker in (near, far, host):
        assert weights(worker) == expected
    assert near.store.arena.is_direct == is_direct
    if is_direct:
        assert far.store.arena.staging == StagingCounts()


def test_a_ring_of_two_is_enough_for_who_must_wait_for_its_copies(make, tmp_path):
    source = make(HostArena)
    small = device(slots_in=2, slots_out=2)
    targets = [make(small, reaches_devices=False) for _ in range(2)]
    fill(source, tmp_path)
    multicast([source, *targets])
    assert weights(targets[0]) == weights(targets[1]) == weights(source)
