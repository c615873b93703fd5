"""Which chunks are here, claimed or missing, over all regions."""

import threading

from jscale.core.chunks import Chunk, ChunkTable
from jscale.store.regions import Region


class Ledger:
    """The regions of a chunk table and what is held of each. Thread-safe: one lock.

    The lock is held neither while bytes move nor while they are hashed. Whoever looks
    at a `Region` itself holds it.
    """

    def __init__(self, table: ChunkTable) -> None:
        """Nothing is held."""
        self.lock = threading.Lock()
        self._table = table
        self.regions = [
            Region(len(table.chunks_of(region)))
            for region in range(len(table.region_sizes_bytes))
        ]

    @property
    def table(self) -> ChunkTable:
        """How the arena is cut."""
        return self._table

    def resize(self, table: ChunkTable, region: int) -> None:
        """Goes on with another table, which differs in one region, empty now."""
        with self.lock:
            self._table = table
            self.regions[region] = Region(len(table.chunks_of(region)))

    def holds(self, index: int) -> bool:
        """Whether a chunk has landed."""
        chunk = self._table.chunk(index)
        return bool(self.regions[chunk.region].held[self._position(chunk)])

    def held(self) -> bytes:
        """Every landed chunk as a bitmap: chunk i is bit `i % 8` of byte `i // 8`."""
        with self.lock:
            flags = b"".join(bytes(region.held) for region in self.regions)
        bits = bytearray(-(-len(flags) // 8))
        for index, flag in enumerate(flags):
            bits[index // 8] |= flag << index % 8
        return bytes(bits)

    def claim(self, chunk: Chunk) -> bool:
        """Whether the caller may write the chunk: it is neither here nor arriving."""
        with self.lock:
            return self.regions[chunk.region].claim(self._position(chunk))

    def land(self, chunk: Chunk) -> int | None:
        """Notes a claimed chunk as here; the region, if that completed it."""
        with self.lock:
            is_full = self.regions[chunk.region].land(self._position(chunk))
        return chunk.region if is_full else None

    def abandon(self, chunk: Chunk) -> None:
        """Notes a claimed chunk as missing again."""
        with self.lock:
            self.regions[chunk.region].abandon(self._position(chunk))

    def _position(self, chunk: Chunk) -> int:
        return chunk.index - self._table.chunks_of(chunk.region).start
