"""Chunks in plain memory: what benches and tests multicast in place of a model."""

import hashlib
import mmap
import random
import threading
from collections.abc import Iterable

from jscale.core.units import MIB


class ChunkMemory:
    """A `ChunkStore` on one mapping, all of one region. Thread-safe.

    Mutable; `cut` and `fill` are for its owner, when no chunk is on its way.
    """

    def __init__(self, size_bytes: int, chunk_size_bytes: int) -> None:
        self._mapping = mmap.mmap(-1, size_bytes)
        self._view = memoryview(self._mapping)
        self._lock = threading.Lock()
        self._is_pinned = False
        self.cut(chunk_size_bytes)

    @property
    def num_chunks(self) -> int:
        """As it is cut now."""
        return len(self._held)

    @property
    def is_full(self) -> bool:
        """Whether every chunk is here."""
        return 0 not in self._held

    def pin(self) -> memoryview:
        """All of it, for a transport to register; its pages stay from now on."""
        self._is_pinned = True
        return self._view

    def cut(self, chunk_size_bytes: int) -> None:
        """Starts anew: other chunks, none of them held, their bytes 0."""
        num_chunks = -(-len(self._view) // chunk_size_bytes)
        self._chunk_size_bytes = chunk_size_bytes
        self._held = bytearray(num_chunks)
        self._arriving: set[int] = set()
        if self._is_pinned:
            self._view[:] = bytes(len(self._view))
        else:
            self._mapping.madvise(mmap.MADV_DONTNEED)

    def fill(self, seed: int = 0) -> None:
        """Holds every chunk, of random bytes: the same for the same seed."""
        rng = random.Random(seed)
        for start in range(0, len(self._view), MIB):
            piece = self._view[start : start + MIB]
            piece[:] = rng.randbytes(len(piece))
        self._held = bytearray(b"\x01" * self.num_chunks)

    def copy(self, other: "ChunkMemory", chunks: Iterable[int]) -> None:
        """Holds these chunks, with the bytes that the other has there."""
        for chunk in chunks:
            self.chunk_bytes(chunk)[:] = other.chunk_bytes(chunk)
            self._held[chunk] = 1

    def digest(self) -> str:
        """SHA-256 of everything."""
        return hashlib.sha256(self._view).hexdigest()

    def held_chunks(self) -> bytes:
        """See `ChunkStore`."""
        bits = bytearray(-(-len(self._held) // 8))
        for index, flag in enumerate(self._held):
            bits[index // 8] |= flag << index % 8
        return bytes(bits)

    def slot(self, chunk: int) -> memoryview | None:
        """See `ChunkStore`."""
        with self._lock:
            if self._held[chunk] or chunk in self._arriving:
                return None
            self._arriving.add(chunk)
        return self.chunk_bytes(chunk)

    def landed(self, chunk: int) -> int | None:
        """See `ChunkStore`; the only region is number 0."""
        with self._lock:
            self._arriving.discard(chunk)
            self._held[chunk] = 1
            return 0 if self.is_full else None

    def failed(self, chunk: int) -> None:
        """See `ChunkStore`."""
        with self._lock:
            self._arriving.discard(chunk)

    def chunk_bytes(self, chunk: int) -> memoryview:
        """See `ChunkStore`."""
        start = chunk * self._chunk_size_bytes
        return self._view[start : start + self._chunk_size_bytes]
