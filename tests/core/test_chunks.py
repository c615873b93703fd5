"""Chunks tile every region and never cross one; against a walk over the bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jscale.core.chunks import (
    CHUNK_SIZE_BYTES_CHOSEN_MAX,
    CHUNK_SIZE_BYTES_MIN,
    CHUNKS_AIMED_AT,
    REGION_ALIGNMENT_BYTES,
    ChunkTable,
    chunk_size_for,
)
from jscale.core.units import GIB, KIB, MIB


@pytest.mark.parametrize(
    ("total_bytes", "chunk_bytes"),
    [
        (0, 4 * KIB),
        (1, 4 * KIB),
        (MIB, 4 * KIB),
        (MIB + 1, 8 * KIB),
        (64 * MIB, 256 * KIB),
        (GIB, 4 * MIB),
        (100 * GIB, 4 * MIB),
    ],
)
def test_a_multicast_is_cut_into_about_256_chunks(total_bytes, chunk_bytes):
    assert chunk_size_for(total_bytes) == chunk_bytes


@given(st.integers(0, 200 * GIB))
@settings(deadline=None)
def test_the_chunk_size_is_a_power_of_two_within_its_bounds(total_bytes):
    size = chunk_size_for(total_bytes)
    assert CHUNK_SIZE_BYTES_MIN <= size <= CHUNK_SIZE_BYTES_CHOSEN_MAX
    assert size & (size - 1) == 0
    assert size == CHUNK_SIZE_BYTES_CHOSEN_MAX or size * CHUNKS_AIMED_AT >= total_bytes


def test_every_region_is_tiled_by_its_chunks():
    table = ChunkTable((10, 0, 8192, 5000), chunk_size_bytes=4096)
    sizes = [
        [table.chunk(index).size_bytes for index in table.chunks_of(region)]
        for region in range(4)
    ]
    assert sizes == [[10], [], [4096, 4096], [4096, 904]]
    assert table.num_chunks == 5
    offsets = [table.region_offset_bytes(region) for region in range(4)]
    assert offsets == [8192 + 8192, 0, 0, 8192]
    assert table.size_bytes == 8192 + 8192 + 4096


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=8), st.integers(1, 700))
@settings(deadline=None)
def test_chunks_tile_the_regions_in_order(sizes_bytes, chunk_size_bytes):
    table = ChunkTable(tuple(sizes_bytes), chunk_size_bytes)
    seen = 0
    for region, size_bytes in enumerate(sizes_bytes):
        done_bytes = 0
        for index in table.chunks_of(region):
            chunk = table.chunk(index)
            assert (chunk.index, chunk.region) == (seen, region)
            assert chunk.offset_bytes == table.region_offset_bytes(region) + done_bytes
            assert 0 < chunk.size_bytes <= chunk_size_bytes
            done_bytes += chunk.size_bytes
            seen += 1
        assert done_bytes == size_bytes
    assert seen == table.num_chunks


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=8))
@settings(deadline=None)
def test_executables_lie_behind_the_blocks_and_move_none_of_them(sizes_bytes):
    table = ChunkTable(tuple(sizes_bytes), chunk_size_bytes=100)
    offset_bytes = 0
    for region in (*range(1, len(sizes_bytes)), 0):
        assert table.region_offset_bytes(region) == offset_bytes
        num_pages = -(-sizes_bytes[region] // REGION_ALIGNMENT_BYTES)
        offset_bytes += num_pages * REGION_ALIGNMENT_BYTES
    assert offset_bytes == table.size_bytes


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=8), st.integers(1, 8))
@settings(deadline=None)
def test_chunks_of_whole_pages_start_where_direct_reads_may_go(sizes_bytes, pages):
    table = ChunkTable(tuple(sizes_bytes), chunk_size_bytes=pages * 4096)
    starts = [table.chunk(index).offset_bytes for index in range(table.num_chunks)]
    assert all(start % 4096 == 0 for start in starts)


def test_a_table_without_regions_is_our_bug():
    with pytest.raises(AssertionError):
        ChunkTable((), chunk_size_bytes=100)


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_beyond_the_chunks_is_refused(index):
    table = ChunkTable((3 * KIB,), chunk_size_bytes=KIB)
    with pytest.raises(IndexError, match=f"chunk {index} of 3"):
        table.chunk(index)


def test_members_that_know_the_same_sizes_agree():
    assert ChunkTable((5, 6), 4) == ChunkTable((5, 6), 4)
    assert hash(ChunkTable((5, 6), 4)) == hash(ChunkTable((5, 6), 4))
