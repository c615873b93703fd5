"""An accelerator's memory emulated in host memory, for tests and machines without."""

import mmap
import queue
import threading
from collections.abc import Callable

import numpy as np

from jscale.core.units import format_size
from jscale.store.device_memory import (
    Copy,
    DeviceMemory,
    DeviceMemoryError,
    MemoryInfo,
)
from jscale.store.dlpack import CPU


class EmulatedMemory(DeviceMemory):
    """Host memory that is reached by copies only, which a thread does in order.

    They are as asynchronous as real ones: what was not waited for may not be there.
    JAX on CPU computes in this memory, through the same array views.
    """

    def __init__(
        self,
        total_bytes: int = 1 << 40,
        *,
        before_copy: Callable[[int], None] = lambda _: None,
    ) -> None:
        """A device with that much memory.

        `before_copy` is called on the copying thread with the number of the copy: tests
        make it wait, or raise a `DeviceMemoryError`.
        """
        self._total_bytes = total_bytes
        self._before_copy = before_copy
        self._lock = threading.Lock()
        self._memories: dict[int, np.ndarray] = {}
        self._pinned: set[int] = set()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._num_jobs = 0
        self._thread: threading.Thread | None = None

    @property
    def name(self) -> str:
        """See `DeviceMemory`."""
        return "emulated device"

    @property
    def dlpack_device(self) -> tuple[int, int]:
        """See `DeviceMemory`: where JAX on CPU computes."""
        return CPU

    @property
    def num_pinned(self) -> int:
        """Memories that were pinned and not unpinned."""
        return len(self._pinned)

    def info(self) -> MemoryInfo:
        """See `DeviceMemory`."""
        taken = sum(memory.nbytes for memory in self._memories.values())
        return MemoryInfo(self._total_bytes - taken, self._total_bytes)

    def allocate(self, size_bytes: int) -> int:
        """See `DeviceMemory`."""
        if size_bytes > (free_bytes := self.info().free_bytes):
            raise DeviceMemoryError(
                f"{self.name}: {format_size(size_bytes)} wanted and "
                f"{format_size(free_bytes)} free; serve a smaller model"
            )
        memory = np.frombuffer(mmap.mmap(-1, max(size_bytes, 1)), np.uint8)
        with self._lock:
            self._memories[memory.ctypes.data] = memory
        return memory.ctypes.data

    def free(self, address: int) -> None:
        """See `DeviceMemory`."""
        with self._lock:
            del self._memories[address]

    def pin(self, memory: memoryview) -> None:
        """See `DeviceMemory`."""
        with self._lock:
            address = _array(memory).ctypes.data
            assert address not in self._pinned, "pinned twice"
            self._pinned.add(address)

    def unpin(self, memory: memoryview) -> None:
        """See `DeviceMemory`."""
        with self._lock:
            self._pinned.remove(_array(memory).ctypes.data)

    def copy_in(self, address: int, data: memoryview) -> Copy:
        """See `DeviceMemory`."""
        return self._begin(self._range(address, data.nbytes), _array(data))

    def copy_out(self, into: memoryview, address: int) -> Copy:
        """See `DeviceMemory`."""
        return self._begin(_array(into), self._range(address, into.nbytes))

    def flush(self) -> None:
        """See `DeviceMemory`: it is host memory."""

    def settle(self) -> None:
        """See `DeviceMemory`."""
        nothing = np.empty(0, np.uint8)
        self._begin(nothing, nothing).wait()

    def export_dmabuf(self, address: int, size_bytes: int) -> int:
        """See `DeviceMemory`."""
        raise DeviceMemoryError(
            f"{self.name} has no DMA-BUF for {size_bytes} bytes at {address:#x}"
        )

    def close(self) -> None:
        """See `DeviceMemory`."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            thread.join()

    def _begin(self, target: np.ndarray, source: np.ndarray) -> Copy:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="emulated-copies", daemon=True
                )
                self._thread.start()
            job = _Job(self._num_jobs, target, source)
            self._num_jobs += 1
            self._jobs.put(job)
        return job.copy

    def _range(self, address: int, size_bytes: int) -> np.ndarray:
        """The bytes of a range of what was allocated."""
        with self._lock:
            for start, memory in self._memories.items():
                if start <= address and address + size_bytes <= start + memory.nbytes:
                    return memory[address - start : address - start + size_bytes]
        raise AssertionError(f"{size_bytes} bytes at {address:#x} are not the device's")

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run(self._before_copy)
            del job  # Or its memory would be held until the next comes.


class _Copy(Copy):
    def __init__(self) -> None:
        self._error: DeviceMemoryError | None = None
        self._ended = threading.Event()

    @property
    def is_done(self) -> bool:
        if self._error is not None:
            raise self._error
        return self._ended.is_set()

    def wait(self) -> None:
        self._ended.wait()
        if self._error is not None:
            raise self._error

    def end(self, error: DeviceMemoryError | None) -> None:
        self._error = error
        self._ended.set()


class _Job:
    """A copy to be done; holds the memory of both sides until then."""

    def __init__(self, number: int, target: np.ndarray, source: np.ndarray) -> None:
        self.copy = _Copy()
        self._number, self._target, self._source = number, target, source

    def run(self, before_copy: Callable[[int], None]) -> None:
        error = None
        try:
            before_copy(self._number)
            self._target[:] = self._source  # Without the interpreter lock.
        except DeviceMemoryError as raised:
            error = raised
        copy = self.copy
        del self._target, self._source
        copy.end(error)


def _array(memory: memoryview) -> np.ndarray:
    return np.frombuffer(memory, np.uint8)
