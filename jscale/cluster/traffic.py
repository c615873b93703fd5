"""Chunks that a worker received from others and sent to them, counted."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from jscale.core.spans import Bytes
from jscale.store.device_memory import DeviceMemoryError
from jscale.transport.multicast import ChunkStore


class Traffic:
    """Numbers since the worker started; they only grow. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.num_received = 0
        self.received_bytes = 0
        self.num_failed = 0
        self.num_sent = 0
        self.sent_bytes = 0

    def received(self, size_bytes: int) -> None:
        """A chunk landed, its checksum right."""
        with self._lock:
            self.num_received += 1
            self.received_bytes += size_bytes

    def failed(self) -> None:
        """A chunk came damaged, or its sender was lost in the midst of it."""
        with self._lock:
            self.num_failed += 1

    def sent(self, size_bytes: int) -> None:
        """A chunk was given to a connection."""
        with self._lock:
            self.num_sent += 1
            self.sent_bytes += size_bytes


class CountedChunks(ChunkStore):
    """A store as multicasts see it: traffic is counted, a device that fails is told."""

    def __init__(
        self,
        store: ChunkStore,
        traffic: Traffic,
        device_failed: Callable[[DeviceMemoryError], None],
    ) -> None:
        """`device_failed` is called before the error goes on to the connection."""
        self._store, self._traffic = store, traffic
        self._device_failed = device_failed
        # Each is set and taken by whoever has claimed the chunk.
        self._sizes_bytes: dict[int, int] = {}

    def held_chunks(self) -> bytes:
        """See `ChunkStore`."""
        return self._store.held_chunks()

    def slot(self, chunk: int) -> Bytes | None:
        """See `ChunkStore`."""
        with self._telling():
            slot = self._store.slot(chunk)
        if slot is not None:
            self._sizes_bytes[chunk] = slot.nbytes
        return slot

    def landed(self, chunk: int) -> int | None:
        """See `ChunkStore`."""
        self._traffic.received(self._sizes_bytes.pop(chunk))
        with self._telling():
            return self._store.landed(chunk)

    def failed(self, chunk: int) -> None:
        """See `ChunkStore`."""
        del self._sizes_bytes[chunk]
        self._traffic.failed()
        self._store.failed(chunk)

    def chunk_bytes(self, chunk: int) -> Bytes:
        """See `ChunkStore`."""
        with self._telling():
            data = self._store.chunk_bytes(chunk)
        self._traffic.sent(data.nbytes)
        return data

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except DeviceMemoryError as error:
            self._device_failed(error)
            raise
