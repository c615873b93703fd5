"""Chunks: the byte space of a multicast, cut into the units that go on the wire."""

import bisect
import dataclasses
import functools
import itertools

from jscale.core.units import KIB, MIB, round_up

CHUNK_SIZE_BYTES_MIN = 4 * KIB
CHUNK_SIZE_BYTES_CHOSEN_MAX = 4 * MIB
CHUNK_SIZE_BYTES_MAX = 8 * MIB
"""Operators may ask for more than is chosen for them, up to this."""
REGION_ALIGNMENT_BYTES = 4 * KIB
"""Pages, and what O_DIRECT asks of the memory that it reads into: with chunks of whole
pages every chunk starts at such an address. Costs half of it for each block."""

CHUNKS_AIMED_AT = 256
"""Enough that the fill of the pipeline is small beside b (256 KiB chunks of 64 MiB:
1.09 of the line on 8 members, 1 MiB chunks: 1.24), few enough to be cheap to track."""


def chunk_size_for(total_bytes: int) -> int:
    """Bytes of a chunk that suits a multicast of `total_bytes`: a power of two."""
    size = CHUNK_SIZE_BYTES_MIN
    while size < CHUNK_SIZE_BYTES_CHOSEN_MAX and size * CHUNKS_AIMED_AT < total_bytes:
        size *= 2
    return size


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A slice of one region; `offset_bytes` counts from the start of the arena."""

    index: int
    region: int
    offset_bytes: int
    size_bytes: int


@dataclasses.dataclass(frozen=True)
class ChunkTable:
    """Regions one after the other, each cut into chunks that never cross a region.

    Region 0 holds the compiled executables (its size may be 0), region `1 + i` block i.
    Region 0 comes first on the wire and lies last in the arena: a source knows where
    its blocks lie before it knows how large its executables are.
    Every member builds the same table from the same sizes, so that a chunk's index
    alone names its bytes. Small: O(regions), not O(chunks).
    """

    region_sizes_bytes: tuple[int, ...]
    chunk_size_bytes: int

    def __post_init__(self) -> None:
        assert self.chunk_size_bytes > 0, self.chunk_size_bytes
        assert self.region_sizes_bytes, "region 0 is there even when it is empty"
        assert all(size >= 0 for size in self.region_sizes_bytes)

    @functools.cached_property
    def _offsets(self) -> tuple[int, ...]:
        """Where each region starts, and after the last, where the arena ends."""
        first, *blocks = (
            round_up(size, REGION_ALIGNMENT_BYTES) for size in self.region_sizes_bytes
        )
        starts = tuple(itertools.accumulate(blocks, initial=0))
        return (starts[-1], *starts[:-1], starts[-1] + first)

    @functools.cached_property
    def _firsts(self) -> tuple[int, ...]:
        """Index of the first chunk of each region, and after the last, their number."""
        counts = (-(-size // self.chunk_size_bytes) for size in self.region_sizes_bytes)
        return tuple(itertools.accumulate(counts, initial=0))

    @property
    def num_chunks(self) -> int:
        """Chunks of all regions together."""
        return self._firsts[-1]

    @property
    def size_bytes(self) -> int:
        """Arena bytes that hold every region, padding included."""
        return self._offsets[-1]

    def region_offset_bytes(self, region: int) -> int:
        """Where a region starts in the arena; at a multiple of its alignment."""
        return self._offsets[region]

    def chunks_of(self, region: int) -> range:
        """Indices of the chunks of a region, in order of their bytes."""
        return range(self._firsts[region], self._firsts[region + 1])

    def chunk(self, index: int) -> Chunk:
        """The chunk of that index. O(log regions).

        Raises:
          IndexError: there is no such chunk.
        """
        if not 0 <= index < self.num_chunks:
            raise IndexError(f"chunk {index} of {self.num_chunks}")
        region = bisect.bisect_right(self._firsts, index) - 1
        inside = (index - self._firsts[region]) * self.chunk_size_bytes
        return Chunk(
            index=index,
            region=region,
            offset_bytes=self.region_offset_bytes(region) + inside,
            size_bytes=min(
                self.chunk_size_bytes, self.region_sizes_bytes[region] - inside
            ),
        )
