"""Buffers from which one connection sends its stream and its control words."""

import collections
import dataclasses

from jscale.transport.rdma_flow import FlowLimits
from jscale.transport.rdma_rail import Rail, Slab
from jscale.transport.rdma_wire import WORD_SIZE_BYTES

WORDS_MAX = 16
"""Control words in one SEND."""


@dataclasses.dataclass(frozen=True)
class Slot:
    """One buffer."""

    view: memoryview
    address: int
    lkey: int

    def local(self, size_bytes: int) -> tuple[int, int, int]:
        """Its first bytes, as requests name them."""
        return self.address, size_bytes, self.lkey


class SendSlots:
    """All buffers of one connection, cut from one slab. Guarded by its owner."""

    def __init__(self, slab: Slab, limits: FlowLimits, buffer_size_bytes: int) -> None:
        self.slab = slab
        self.stream: collections.deque[Slot] = collections.deque()
        self.words: collections.deque[Slot] = collections.deque()
        offset = 0
        for slots, number, size_bytes in (
            (self.stream, limits.stream, buffer_size_bytes),
            (self.words, limits.words, WORDS_MAX * WORD_SIZE_BYTES),
        ):
            for _ in range(number):
                view = slab.view[offset : offset + size_bytes]
                slots.append(Slot(view, slab.address + offset, slab.lkey))
                offset += size_bytes

    @staticmethod
    def size_bytes(limits: FlowLimits, buffer_size_bytes: int) -> int:
        """What a slab for one connection holds."""
        words_size_bytes = limits.words * WORDS_MAX * WORD_SIZE_BYTES
        return limits.stream * buffer_size_bytes + words_size_bytes


class SlabPool:
    """Slabs that connections use one after the other, as registering one takes time.

    Mutable; guarded by its owner.
    """

    def __init__(self, rail: Rail, size_bytes: int) -> None:
        self._rail = rail
        self._size_bytes = size_bytes
        self._free: list[Slab] = []

    def take(self) -> Slab:
        """One that nobody uses.

        Raises:
          TransportError: the device takes no more memory.
        """
        return (
            self._free.pop() if self._free else self._rail.make_slab(self._size_bytes)
        )

    def give(self, slab: Slab) -> None:
        """Nobody uses it any more; no request that names it is posted."""
        self._free.append(slab)
