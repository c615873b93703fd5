"""The arena of an accelerator: blocks in its memory, outside the pool of XLA."""

import collections
import mmap
import threading
import weakref
from collections.abc import Callable, Iterator

import jax
import numpy as np

from jscale.core.errors import ConfigError
from jscale.core.layout import TensorLayout
from jscale.core.spans import Bytes, DeviceSpan
from jscale.core.units import MIB, format_size, round_up
from jscale.store.arena import Arena, ArenaSizes, InUseError, StagingCounts
from jscale.store.device_memory import Copy, DeviceMemory, DeviceMemoryError
from jscale.store.digest import BlockDigest
from jscale.store.host_copy import copy_bytes
from jscale.store.staging import Slot, StagingRing
from jscale.store.views import Views

STAGING_BYTES = 64 * MIB
"""Of chunks that come (four reads of 4 MiB from disk, as many copies, and what
connections receive), and as much of chunks that are being sent or hashed."""

SLOTS_MIN = 16
"""In each direction, however large chunks are: RDMA connections have so many on their
way."""


class DeviceArena(Arena):
    """Blocks on the device; executables, and what stages chunks, in pinned host memory.

    Where the transport reaches the device (`reach_directly`), slots and reads are
    `DeviceSpan`s. Elsewhere slots are in a ring of pinned memory, and what landed there
    is copied to its place while others arrive. Digests need bytes in order, and chunks
    come in any: so a block is hashed when it is whole, read back piece by piece: the
    next comes while one is hashed, and what is checked is what the model will read.
    """

    def __init__(
        self,
        device: DeviceMemory,
        sizes: ArenaSizes,
        *,
        slots_in: int | None = None,
        slots_out: int | None = None,
    ) -> None:
        """Allocates everything. The arena closes the device when it is closed.

        Raises:
          ConfigError: there is not the memory.
        """
        self._device, self._sizes = device, sizes
        slot_bytes = round_up(sizes.chunk_bytes, mmap.PAGESIZE)
        slots_in = slots_in or _num_slots(sizes, slot_bytes)
        slots_out = slots_out or _num_slots(sizes, slot_bytes)
        staging_bytes = (slots_in + slots_out) * slot_bytes
        try:
            self._base = device.allocate(round_up(sizes.blocks_bytes, mmap.PAGESIZE))
            self._mapping = mmap.mmap(-1, staging_bytes + max(sizes.host_bytes, 1))
            self._host = memoryview(self._mapping)
            device.pin(self._host)
        except (DeviceMemoryError, OSError, OverflowError) as error:
            raise ConfigError(
                f"arena of {format_size(sizes.blocks_bytes)} on {device.name}, with "
                f"{format_size(staging_bytes + sizes.host_bytes)} of pinned host "
                f"memory: {error}"
            ) from error
        cut = [
            self._host[start : start + slot_bytes]
            for start in range(0, staging_bytes, slot_bytes)
        ]
        self._incoming = StagingRing(cut[:slots_in])
        self._outgoing = StagingRing(cut[slots_in:])
        self._executables = self._host[staging_bytes:]
        self._views = Views(device.dlpack_device, device)
        self._is_direct = False
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._slots: dict[int, tuple[Slot, int]] = {}
        self._pinned: list[tuple[int, int]] = []
        self._copied: collections.deque[tuple[memoryview, Copy]] = collections.deque()

    @property
    def size_bytes(self) -> int:
        """See `Arena`."""
        return self._sizes.total_bytes

    @property
    def address(self) -> int:
        """Where the blocks start, in the address space of the device."""
        return self._base

    @property
    def num_views(self) -> int:
        """See `Arena`."""
        return self._views.num_alive

    def slot(self, offset_bytes: int, size_bytes: int) -> Bytes:
        """See `Arena`: on the device if the transport reaches it, else staged."""
        if self._is_direct and self._is_on_device(offset_bytes, size_bytes):
            return _Span(self, offset_bytes, size_bytes)
        return self.host_slot(offset_bytes, size_bytes)

    def host_slot(self, offset_bytes: int, size_bytes: int) -> memoryview:
        """See `Arena`: staged, but for executables."""
        if not self._is_on_device(offset_bytes, size_bytes):
            return self.memory(offset_bytes, size_bytes)
        slot = self._incoming.take()
        with self._lock:
            assert offset_bytes not in self._slots, offset_bytes
            self._slots[offset_bytes] = slot, size_bytes
        return slot.memory[:size_bytes]

    def landed(self, offset_bytes: int) -> None:
        """See `Arena`: begins the copy of what was staged."""
        with self._lock:
            taken = self._slots.pop(offset_bytes, None)
            if taken is not None:  # Else it was written where it belongs.
                self._copy_staged(offset_bytes, *taken)

    def failed(self, offset_bytes: int) -> None:
        """See `Arena`."""
        with self._lock:
            taken = self._slots.pop(offset_bytes, None)
        if taken is not None:
            self._incoming.give_back(taken[0])

    def write(self, offset_bytes: int, data: memoryview) -> None:
        """See `Arena`: by pinned memory, but for data that is pinned itself."""
        if not self._is_on_device(offset_bytes, data.nbytes):
            copy_bytes(self.memory(offset_bytes, data.nbytes), data)
        elif self._is_pinned(data):
            with self._lock:
                while self._copied and self._copied[0][1].is_done:
                    self._copied.popleft()
                copy = self._device.copy_in(self._base + offset_bytes, data)
                self._copied.append((data, copy))
        else:
            slot = self._incoming.take()
            copy_bytes(slot.memory, data)
            with self._lock:
                self._copy_staged(offset_bytes, slot, data.nbytes)

    def synchronize(self) -> None:
        """See `Arena`."""
        self._device.settle()

    def read(self, offset_bytes: int, size_bytes: int) -> Bytes:
        """See `Arena`: on the device if the transport reaches it, else a copy."""
        if not self._is_on_device(offset_bytes, size_bytes):
            return self.memory(offset_bytes, size_bytes).toreadonly()
        if self._is_direct:
            return _Span(self, offset_bytes, size_bytes)
        return self.read_back(offset_bytes, size_bytes)

    def read_back(self, offset_bytes: int, size_bytes: int) -> memoryview:
        """A copy of a chunk in pinned memory, free when nobody refers to it."""
        slot = self._outgoing.take()
        lent = np.frombuffer(slot.memory, np.uint8, size_bytes)
        given_back = weakref.finalize(lent, self._outgoing.give_back, slot)
        given_back.atexit = False
        if self._is_direct:
            self._device.flush()
        copy = self._device.copy_out(
            slot.memory[:size_bytes], self._base + offset_bytes
        )
        copy.wait()
        return lent.data.toreadonly()

    def digest(self, offset_bytes: int, size_bytes: int) -> str:
        """See `Arena`: the next piece is read back while one is hashed."""
        assert self._is_on_device(offset_bytes, size_bytes), offset_bytes
        if self._is_direct:
            self._device.flush()
        digest = BlockDigest()
        slots = self._outgoing.take(), self._outgoing.take()
        for piece in self._pieces(self._base + offset_bytes, size_bytes, slots):
            digest.update(piece)
        for slot in slots:
            self._outgoing.give_back(slot)
        return digest.hexdigest()

    def memory(self, offset_bytes: int, size_bytes: int) -> memoryview:
        """See `Arena`: of executables only."""
        start = offset_bytes - self._sizes.blocks_bytes
        assert 0 <= start <= start + size_bytes <= self._sizes.host_bytes, offset_bytes
        return self._executables[start : start + size_bytes]

    def view(
        self, offset_bytes: int, tensor: TensorLayout, *, keep_alive: object = None
    ) -> jax.Array:
        """See `Arena`; the bytes were waited for when they were hashed."""
        start = offset_bytes + tensor.offset_bytes
        assert self._is_on_device(start, tensor.size_bytes), tensor
        return self._views.lend(self._base + start, tensor, keep_alive)

    @property
    def host_memory(self) -> memoryview:
        """See `Arena`: what stages chunks, and the executables."""
        return self._host

    @property
    def device_memory(self) -> DeviceSpan | None:
        """See `Arena`: all blocks."""
        return _Span(self, 0, round_up(self._sizes.blocks_bytes, mmap.PAGESIZE))

    def export_dmabuf(self) -> int:
        """See `Arena`."""
        size_bytes = round_up(self._sizes.blocks_bytes, mmap.PAGESIZE)
        return self._device.export_dmabuf(self._base, size_bytes)

    def reach_directly(self) -> None:
        """See `Arena`."""
        self._is_direct = True

    @property
    def is_direct(self) -> bool:
        """See `Arena`."""
        return self._is_direct

    def stay_in_place(self) -> None:
        """See `Arena`: it is pinned anyway."""

    def pin(self, memory: memoryview) -> Callable[[], None]:
        """See `Arena`."""
        self._device.pin(memory)
        place = np.frombuffer(memory, np.uint8).ctypes.data, memory.nbytes
        with self._lock:
            self._pinned.append(place)

        def unpin() -> None:
            self.synchronize()
            with self._lock:
                self._pinned.remove(place)
                self._copied.clear()
            self._device.unpin(memory)

        return unpin

    @property
    def staging(self) -> StagingCounts:
        """See `Arena`."""
        return self._incoming.counts + self._outgoing.counts

    def discard(self, offset_bytes: int, size_bytes: int) -> None:
        """See `Arena`: a device's memory is not given back in parts."""

    def close(self, timeout_s: float = 1.0) -> None:
        """See `Arena`."""
        name = f"arena of {format_size(self._sizes.blocks_bytes)} on the device"
        if not self._views.wait_until_dead(timeout_s):
            raise InUseError(
                f"{name}: {self.num_views} array views are alive; drop them before "
                "closing it"
            )
        if not (self._incoming.is_idle and self._outgoing.is_idle):
            raise InUseError(
                f"{name}: chunks of it are being received or sent; close the "
                "connections before the arena"
            )
        self._incoming.close()
        self._outgoing.close()
        self._executables.release()
        self._copied.clear()
        self._device.unpin(self._host)
        self._host.release()
        try:
            self._mapping.close()
        except BufferError as error:
            raise InUseError(
                f"{name}: memory of its executables is still held ({error}); release "
                "it before closing the arena"
            ) from error
        self._device.free(self._base)
        self._device.close()

    def _is_on_device(self, offset_bytes: int, size_bytes: int) -> bool:
        """Where a range lies: it never crosses from blocks to executables."""
        end = offset_bytes + size_bytes
        assert 0 <= offset_bytes <= end <= self._sizes.total_bytes, offset_bytes
        is_on_device = offset_bytes < self._sizes.blocks_bytes
        assert not is_on_device or end <= self._sizes.blocks_bytes, offset_bytes
        return is_on_device

    def _is_pinned(self, data: memoryview) -> bool:
        if not self._pinned:
            return False
        start = np.frombuffer(data, np.uint8).ctypes.data
        end = start + data.nbytes
        with self._lock:
            return any(
                first <= start and end <= first + size for first, size in self._pinned
            )

    def _copy_staged(self, offset_bytes: int, slot: Slot, size_bytes: int) -> None:
        """Begins a copy. Under the lock, so that the ring knows the order."""
        data = slot.memory[:size_bytes]
        try:
            copy = self._device.copy_in(self._base + offset_bytes, data)
        except BaseException:
            self._incoming.give_back(slot)
            raise
        self._incoming.copied(slot, copy)

    def _pieces(
        self, address: int, size_bytes: int, slots: tuple[Slot, Slot]
    ) -> Iterator[memoryview]:
        """The bytes of a range, each piece good until the next but one is asked for."""
        begun: tuple[memoryview, Copy] | None = None
        at_once = self._outgoing.slot_size_bytes
        for index, start in enumerate(range(0, size_bytes, at_once)):
            piece = slots[index % 2].memory[: min(at_once, size_bytes - start)]
            copy = self._device.copy_out(piece, address + start)
            if begun is not None:
                yield _waited(*begun)
            begun = piece, copy
        if begun is not None:
            yield _waited(*begun)


def _num_slots(sizes: ArenaSizes, slot_bytes: int) -> int:
    """So many slots for chunks of one direction; no more than there are chunks."""
    num_chunks = -(-sizes.blocks_bytes // sizes.chunk_bytes)
    return max(2, min(num_chunks, max(SLOTS_MIN, STAGING_BYTES // slot_bytes)))


def _waited(piece: memoryview, copy: Copy) -> memoryview:
    copy.wait()
    return piece


class _Span(DeviceSpan):
    """A range of the blocks of an arena."""

    def __init__(self, arena: DeviceArena, offset_bytes: int, size_bytes: int) -> None:
        self._arena, self._offset_bytes, self._nbytes = arena, offset_bytes, size_bytes

    @property
    def address(self) -> int:
        return self._arena.address + self._offset_bytes

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def read(self) -> memoryview:
        return self._arena.read_back(self._offset_bytes, self._nbytes)

    def write(self, data: memoryview) -> None:
        assert data.nbytes == self._nbytes, (data.nbytes, self._nbytes)
        self._arena.write(self._offset_bytes, data)
