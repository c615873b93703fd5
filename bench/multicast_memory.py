"""The bytes of one benchmark member, and how much memory its process takes."""

import hashlib
import mmap
import os
import threading


class ChunkMemory:
    """A `ChunkStore` on one mapping, without a model. Thread-safe."""

    def __init__(self, size_bytes: int) -> None:
        self._mapping = mmap.mmap(-1, size_bytes)
        self._view = memoryview(self._mapping)
        self._lock = threading.Lock()
        self._chunk_size_bytes = size_bytes
        self._held = bytearray(1)
        self._arriving: set[int] = set()

    @property
    def num_chunks(self) -> int:
        """As it is cut now."""
        return len(self._held)

    @property
    def is_full(self) -> bool:
        """Whether every chunk is here."""
        return 0 not in self._held

    def fill(self) -> None:
        """Writes what the source sends."""
        for start in range(0, len(self._view), 1 << 20):
            piece = self._view[start : start + (1 << 20)]
            piece[:] = os.urandom(len(piece))

    def cut(self, chunk_size_bytes: int, *, is_held: bool) -> None:
        """Starts anew, with every chunk held or none, and then wiped."""
        num_chunks = -(-len(self._view) // chunk_size_bytes)
        self._chunk_size_bytes = chunk_size_bytes
        self._held = bytearray([is_held]) * num_chunks
        self._arriving.clear()
        if not is_held:
            self._mapping.madvise(mmap.MADV_DONTNEED)

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
        """See `ChunkStore`; there are no regions."""
        with self._lock:
            self._arriving.discard(chunk)
            self._held[chunk] = 1

    def failed(self, chunk: int) -> None:
        """See `ChunkStore`."""
        with self._lock:
            self._arriving.discard(chunk)

    def chunk_bytes(self, chunk: int) -> memoryview:
        """See `ChunkStore`."""
        start = chunk * self._chunk_size_bytes
        return self._view[start : start + self._chunk_size_bytes]


def peak_memory_bytes() -> int:
    """The most memory this process has had, everything counted, since the reset."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def reset_peak_memory() -> None:
    """Forgets the peak of what went before."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
