"""Which chunks of the model a simulated worker holds: `BlockStore` without bytes."""

from jscale.core.chunks import ChunkTable


class SimulatedStore:
    """Owns what a worker has received. Regions are complete when all chunks are."""

    def __init__(self, chunks: ChunkTable) -> None:
        self.chunks = chunks
        self._is_held = bytearray(chunks.num_chunks)
        self._num_missing = [
            len(chunks.chunks_of(region))
            for region in range(len(chunks.region_sizes_bytes))
        ]
        self.num_duplicates = 0

    def is_complete(self, region: int) -> bool:
        """Whether all chunks of the region are here."""
        return self._num_missing[region] == 0

    def held_chunks(self) -> bytes:
        """A bit for each chunk: chunk i is bit `i % 8` of byte `i // 8`."""
        held = self._is_held
        return bytes(
            sum(held[first + bit] << bit for bit in range(min(8, len(held) - first)))
            for first in range(0, len(held), 8)
        )

    def landed(self, chunk: int) -> int | None:
        """Notes that a chunk is here; the region that this completed, if one."""
        if self._is_held[chunk]:
            self.num_duplicates += 1
            return None
        self._is_held[chunk] = 1
        region = self.chunks.chunk(chunk).region
        self._num_missing[region] -= 1
        return None if self._num_missing[region] else region

    def fill(self, region: int) -> None:
        """All of a region is here."""
        for chunk in self.chunks.chunks_of(region):
            self._is_held[chunk] = 1
        self._num_missing[region] = 0
