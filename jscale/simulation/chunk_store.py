"""Which chunks of the model a simulated worker holds: `BlockStore` without bytes."""

import dataclasses

from jscale.core.chunks import ChunkTable
from jscale.core.ids import WorkerId


class SimulatedStore:
    """Owns what a worker has received. Regions are complete when all chunks are."""

    def __init__(self, chunks: ChunkTable) -> None:
        self.chunks = chunks
        self._is_held = bytearray(chunks.num_chunks)
        self._num_missing = [
            len(chunks.chunks_of(region))
            for region in range(len(chunks.region_sizes_bytes))
        ]
        self.arriving: dict[int, WorkerId] = {}

    @property
    def num_leading(self) -> int:
        """Chunks of executables: the numbers of those of blocks begin there."""
        return len(self.chunks.chunks_of(0))

    def reserve_executables(self, size_bytes: int) -> bool:
        """Makes region 0 that large and empty, unless it is; numbers shift by it."""
        _, *sizes_bytes = self.chunks.region_sizes_bytes
        table = dataclasses.replace(
            self.chunks, region_sizes_bytes=(size_bytes, *sizes_bytes)
        )
        if table == self.chunks:
            return False
        of_blocks = self._is_held[self.num_leading :]
        self.chunks = table
        self._is_held = bytearray(self.num_leading) + of_blocks
        self._num_missing[0] = self.num_leading
        self.arriving.clear()
        return True

    def holds(self, chunk: int) -> bool:
        """Whether the chunk is here."""
        return bool(self._is_held[chunk])

    def is_complete(self, region: int) -> bool:
        """Whether all chunks of the region are here."""
        return self._num_missing[region] == 0

    def held_chunks(self) -> bytes:
        """What is here: chunk i is bit `i % 8` of byte `i // 8`."""
        return _bits(self._is_held)

    def held_and_arriving(self) -> bytes:
        """What need not be sent here."""
        held = self._is_held.copy()
        for chunk in self.arriving:
            held[chunk] = 1
        return _bits(held)

    def landed(self, chunk: int) -> int | None:
        """Notes that a chunk is here; the region that this completed, if one."""
        assert not self._is_held[chunk], chunk
        self._is_held[chunk] = 1
        self.arriving.pop(chunk, None)
        region = self.chunks.chunk(chunk).region
        self._num_missing[region] -= 1
        return None if self._num_missing[region] else region

    def fill(self, region: int) -> None:
        """All of a region is here."""
        for chunk in self.chunks.chunks_of(region):
            self._is_held[chunk] = 1
        self._num_missing[region] = 0


def _bits(held: bytearray) -> bytes:
    return bytes(
        sum(held[first + bit] << bit for bit in range(min(8, len(held) - first)))
        for first in range(0, len(held), 8)
    )
