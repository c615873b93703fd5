"""Blocks from files into a store, chunk by chunk: large reads, several at once."""

import collections
import contextlib
import dataclasses
import pathlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from jscale.core.chunks import ChunkTable
from jscale.core.errors import CheckpointError
from jscale.core.units import MIB
from jscale.store.block_file import BlockFile

PIECE_BYTES = 4 * MIB
"""What one read asks for at most. Measured with `READS_AT_ONCE` of 4 on an NVMe disk:
1 MiB 2.5 GB/s, 4 MiB 2.4 to 2.6, 16 MiB 2.7; a chunk is that large at most, and is sent
on when it is there."""

READS_AT_ONCE = 4
"""Measured with pieces of 4 MiB: one 2.4 to 2.5 GB/s, two 2.6, four 2.4 to 2.6, eight
2.7. Two are enough for one disk; four also for a stripe of them, and for page faults
of an arena that is written for the first time."""

_VIEWS_PER_READ_MAX = 1024
"""What the kernel takes (IOV_MAX)."""


class ChunkSlots(Protocol):
    """Where chunks go, by their index in a table; thread-safe. `BlockStore` is one."""

    def host_slot(self, chunk: int) -> memoryview | None:
        """Where the bytes go; None: they are here or arriving, read something else.

        The slot is the caller's alone until it calls `landed` or `failed`.
        """

    def landed(self, chunk: int) -> object:
        """Notes that they are there."""

    def failed(self, chunk: int) -> None:
        """Notes that the slot holds rubbish: the chunk is missing again."""


@dataclasses.dataclass(frozen=True)
class ReadReport:
    """What was read, and how.

    Attributes:
      folders: where it was.
      size_bytes: read in all; less than the blocks have where chunks came otherwise.
      direct_bytes: of these, past the page cache.
      why_cached: why others were not; empty if all were, but for ends of files.
    """

    folders: tuple[str, ...]
    size_bytes: int
    direct_bytes: int
    why_cached: str

    def __str__(self) -> str:
        where = ",".join(self.folders) or "nowhere"
        how = f"bytes={self.size_bytes} direct_bytes={self.direct_bytes}"
        why = f" page_cache={self.why_cached!r}" if self.why_cached else ""
        return f"{where} {how}{why}"


@dataclasses.dataclass(frozen=True)
class _Piece:
    """Chunks of one block that lie side by side in its file."""

    block: int
    chunks: range


class BlockReader:
    """Reads blocks once: make one, `run` it. It may be stopped from any thread.

    Chunks that are here or arrive by another way are not read; so it may run while a
    multicast fills the same store, which in turn drops what was read already.
    """

    def __init__(
        self,
        chunks: ChunkTable,
        files: Mapping[int, Sequence[pathlib.Path]],
        slots: ChunkSlots,
        *,
        piece_bytes: int = PIECE_BYTES,
        reads_at_once: int = READS_AT_ONCE,
    ) -> None:
        """Nothing is read yet.

        Args:
          chunks: by which `slots` takes them; region `1 + i` is block i.
          files: of the blocks to be read, in this order; for each the places where it
            may be, the fastest first.
          slots: what is filled.
          piece_bytes: of one read; at least a chunk is read at once.
          reads_at_once: threads that read.
        """
        self._chunks = chunks
        self._files = files
        self._slots = slots
        self._reads_at_once = reads_at_once
        per_piece = max(1, piece_bytes // chunks.chunk_size_bytes)
        self._chunks_per_piece = min(per_piece, _VIEWS_PER_READ_MAX)
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._pieces = self._cut()
        self._open: dict[int, BlockFile] = {}
        self._read_bytes: collections.Counter[int] = collections.Counter()
        self._error: BaseException | None = None
        self._is_stopped = False

    def run(self) -> ReadReport:
        """Reads what is missing, and returns when all of it has landed.

        Raises:
          CheckpointError: a file is missing, unreadable, or of another size. What
            landed stays; what was being read by others still does.
        """
        others = [
            threading.Thread(target=self._work, name=f"read-{number}", daemon=True)
            for number in range(1, self._reads_at_once)
        ]
        for thread in others:
            thread.start()
        self._work()
        for thread in others:
            thread.join()
        for file in self._open.values():
            file.close()
        if self._error is not None:
            raise self._error
        reasons = (file.why_cached for file in self._open.values())
        folders = {str(file.path.parent) for file in self._open.values()}
        return ReadReport(
            tuple(sorted(folders)),
            self._read_bytes.total(),
            sum(file.direct_bytes for file in self._open.values()),
            next(filter(None, reasons), ""),
        )

    def file_of(self, block: int) -> pathlib.Path | None:
        """The file that all of a block was read from; None: some came otherwise."""
        with self._lock:
            read_bytes = self._read_bytes[block]
        is_whole = read_bytes == self._chunks.region_sizes_bytes[1 + block]
        return self._open[block].path if is_whole and block in self._open else None

    def stop(self) -> None:
        """Reads nothing more but what is being read."""
        with self._lock:
            self._is_stopped = True

    def _cut(self) -> Iterator[_Piece]:
        for block in self._files:
            chunks = self._chunks.chunks_of(1 + block)
            for start in range(chunks.start, chunks.stop, self._chunks_per_piece):
                stop = min(start + self._chunks_per_piece, chunks.stop)
                yield _Piece(block, range(start, stop))

    def _work(self) -> None:
        try:
            while (piece := self._next()) is not None:
                self._read(piece)
        except BaseException as error:  # noqa: BLE001 - `run` raises it
            with self._lock:
                self._error = self._error or error
                self._is_stopped = True

    def _next(self) -> _Piece | None:
        with self._lock:
            return None if self._is_stopped else next(self._pieces, None)

    def _read(self, piece: _Piece) -> None:
        """Reads what of the piece is missing, in as few reads as that takes."""
        claimed: dict[int, memoryview] = {}
        try:
            for chunk in piece.chunks:
                slot = self._slots.host_slot(chunk)
                if slot is not None:
                    claimed[chunk] = slot
                else:
                    self._fill(piece.block, claimed)
            self._fill(piece.block, claimed)
        except BaseException:
            for chunk in claimed:
                self._slots.failed(chunk)
            raise

    def _fill(self, block: int, claimed: dict[int, memoryview]) -> None:
        """Fills slots of chunks that follow each other, by one read."""
        if not claimed:
            return
        first = self._chunks.chunk(next(iter(claimed)))
        offset_bytes = first.offset_bytes - self._chunks.region_offset_bytes(1 + block)
        self._file(block).read(offset_bytes, list(claimed.values()))
        with self._lock:
            self._read_bytes[block] += sum(slot.nbytes for slot in claimed.values())
        for chunk in tuple(claimed):
            del claimed[chunk]
            self._slots.landed(chunk)

    def _file(self, block: int) -> BlockFile:
        with self._lock:
            file = self._open.get(block)
            if file is None:
                file = self._open[block] = self._find(block)
            return file

    def _find(self, block: int) -> BlockFile:
        """Opens the first that is there."""
        size_bytes = self._chunks.region_sizes_bytes[1 + block]
        *faster, last = self._files[block]
        for path in faster:
            with contextlib.suppress(CheckpointError):
                return BlockFile(path, size_bytes)
        return BlockFile(last, size_bytes)
