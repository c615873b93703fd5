"""Slots of pinned host memory, where bytes wait for their copy to the device."""

import collections
import dataclasses
import mmap
import queue
import threading
from collections.abc import Iterable

from jscale.store.arena import StagingCounts
from jscale.store.device_memory import Copy


@dataclasses.dataclass(frozen=True, eq=False)
class Slot:
    """Host memory for a chunk; a spare one is ordinary memory, and used once."""

    memory: memoryview
    is_spare: bool = False


class StagingRing:
    """So many slots, lent and taken back. Thread-safe.

    A slot that is being copied is lent again only when its copy is done. `take` waits
    for copies, which end by themselves, and never for those who hold slots: where all
    slots are held, it makes a spare one. So nobody can wait for ever, in whatever order
    slots are filled, given back or kept.
    """

    def __init__(self, memories: Iterable[memoryview]) -> None:
        """A ring of slots in these memories, all of one size and page-aligned."""
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for memory in memories:
            self._slot_size_bytes = memory.nbytes
            self._free.put(Slot(memory))
        self._num_slots = self._free.qsize()
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._copied: collections.deque[tuple[Slot, Copy]] = collections.deque()
        self._num_waits = 0
        self._num_spares = 0

    @property
    def counts(self) -> StagingCounts:
        """How it went so far."""
        return StagingCounts(self._num_waits, self._num_spares)

    @property
    def slot_size_bytes(self) -> int:
        """Bytes of every slot."""
        return self._slot_size_bytes

    @property
    def is_idle(self) -> bool:
        """Whether nobody holds a slot, other than a copy that is being done."""
        with self._lock:
            copied = sum(not slot.is_spare for slot, _ in self._copied)
            return self._free.qsize() + copied == self._num_slots

    def take(self) -> Slot:
        """A slot that is the caller's until `copied` or `give_back`.

        Raises:
          DeviceMemoryError: the copy that it waited for failed.
        """
        while True:
            with self._lock:
                while self._copied and self._copied[0][1].is_done:
                    self.give_back(self._copied.popleft()[0])
                try:
                    return self._free.get_nowait()
                except queue.Empty:
                    if not self._copied:
                        self._num_spares += 1
                        memory = memoryview(mmap.mmap(-1, self._slot_size_bytes))
                        return Slot(memory, is_spare=True)
                slot, copy = self._copied.popleft()
                self._num_waits += 1
            copy.wait()
            self.give_back(slot)

    def copied(self, slot: Slot, copy: Copy) -> None:
        """The slot is free again when this copy is done, which was begun last."""
        with self._lock:
            self._copied.append((slot, copy))

    def give_back(self, slot: Slot) -> None:
        """Nobody needs what is in the slot. Takes no lock: finalizers may call it."""
        if not slot.is_spare:
            self._free.put(slot)

    def close(self) -> None:
        """Waits for every copy; nobody takes slots any more.

        Raises:
          DeviceMemoryError: one failed.
        """
        while self._copied:
            self._copied.popleft()[1].wait()
        while not self._free.empty():
            self._free.get_nowait().memory.release()
