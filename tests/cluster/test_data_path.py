import os

import pytest

from jscale.cluster import data_path
from jscale.core.errors import TransportError
from jscale.core.spans import DeviceSpan
from jscale.store.arena import ArenaSizes
from jscale.store.device_arena import DeviceArena
from jscale.store.emulated_memory import EmulatedMemory
from jscale.store.host_arena import HostArena
from jscale.transport.base import Hello
from jscale.transport.registry import open_transport

SIZES = ArenaSizes(blocks_bytes=16384, host_bytes=4096, chunk_bytes=4096)


class Reaching:
    """A transport that reaches devices in one way, or says why it does not."""

    def __init__(self, path=None, why=None):
        self.path, self.why = path, why
        self.registered = []
        self.descriptor = None

    def register(self, memory):
        if self.path == "nothing":
            raise TransportError("ulimit -l is 8 MiB")
        self.registered.append(memory.nbytes)

    def register_device(self, region, dmabuf):
        assert region.nbytes == SIZES.blocks_bytes
        if self.path == "dmabuf":
            self.descriptor = dmabuf()
        if self.why:
            raise TransportError(self.why)
        return self.path


class Exporting(EmulatedMemory):
    def export_dmabuf(self, address, size_bytes):
        return os.memfd_create("dmabuf")


@pytest.fixture
def arena():
    arena = DeviceArena(Exporting(), SIZES)
    yield arena
    arena.close()


def test_host_memory_is_registered_whole_and_keeps_its_pages():
    arena = HostArena(SIZES)
    transport = Reaching()
    assert data_path.register(arena, transport) == "host"
    assert transport.registered == [SIZES.total_bytes]
    arena.memory(0, 8192)[:] = b"\x01" * 8192
    arena.discard(0, 8192)
    assert arena.memory(0, 1) == b"\x01"
    arena.close()


@pytest.mark.parametrize("path", ["dmabuf", "peermem"])
def test_a_transport_that_reaches_the_device_is_given_its_memory(arena, path):
    transport = Reaching(path)
    assert data_path.register(arena, transport) == path
    assert isinstance(arena.slot(0, 4096), DeviceSpan)
    if path == "dmabuf":
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(transport.descriptor)


def test_one_that_does_not_gets_staging_memory_and_the_reason_is_kept(arena):
    transport = Reaching(why="no GPUDirect here")
    assert data_path.register(arena, transport) == "staged: no GPUDirect here"
    slot = arena.slot(0, 4096)
    assert isinstance(slot, memoryview)
    slot.release()
    arena.failed(0)


def test_memory_that_cannot_be_locked_is_copied_and_keeps_no_pages():
    arena = HostArena(SIZES)
    said = data_path.register(arena, Reaching("nothing"))
    assert said == "copied: ulimit -l is 8 MiB"
    arena.memory(0, 8192)[:] = b"\x01" * 8192
    arena.discard(0, 8192)
    assert arena.memory(0, 1) == b"\x00"
    arena.close()


def test_what_the_driver_says_of_dmabuf_reaches_the_transport():
    arena = DeviceArena(EmulatedMemory(), SIZES)
    said = data_path.register(arena, Reaching("dmabuf"))
    assert said.startswith("staged: emulated device has no DMA-BUF")
    arena.close()


def test_tcp_and_mem_reach_host_memory(arena):
    for address in ("tcp://127.0.0.1:0", "mem://somewhere"):
        with open_transport(address, Hello("w0", b"token")) as transport:
            said = data_path.register(arena, transport)
            assert said == "staged: this transport reaches host memory only"
