"""Where chunks land whose slot no device can reach; they are copied from there."""

import mmap

from jscale.core.units import round_up
from jscale.transport.rdma_endpoint import Region
from jscale.transport.rdma_memory import RegisteredMemory
from jscale.transport.rdma_side_channel import SideChannel
from jscale.transport.rdma_wire import Place


class LandingPad:
    """Room for one chunk, registered when it is first needed. Mutable; its owner's."""

    def __init__(self, memory: RegisteredMemory, channel: SideChannel) -> None:
        self._memory = memory
        self._channel = channel
        self._region: Region | None = None
        self._view = memoryview(b"")

    def place_for(self, size_bytes: int) -> tuple[Place, memoryview]:
        """Where a chunk of that size may land; nothing else is there.

        Raises:
          TransportError: a device takes no more memory.
        """
        if self._region is None or self._region.size_bytes < size_bytes:
            self.close()
            self._view = memoryview(mmap.mmap(-1, round_up(size_bytes, mmap.PAGESIZE)))
            self._region = self._memory.add(self._view, is_private=True)
            self._channel.tell(self._region)
        return Place(self._region.number, 0), self._view[:size_bytes]

    def close(self) -> None:
        """Gives the memory back."""
        if self._region is not None:
            self._memory.remove(self._region.number)
            self._region = None
