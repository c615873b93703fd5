"""The arena: one mapping that holds every byte of a worker's model."""

import ctypes
import gc
import mmap
import queue
import time

import jax

from jscale.core.errors import ConfigError, JscaleError
from jscale.core.layout import TensorLayout
from jscale.core.units import format_size
from jscale.store import dlpack


class InUseError(JscaleError):
    """Memory that somebody still reads cannot be given away."""


class Arena:
    """A page-aligned anonymous mapping, lent out as writable memory and array views.

    Physical pages appear as they are first written, so reserving much costs nothing.
    Any thread may use it; who writes where, and when, is up to the caller.
    """

    def __init__(self, size_bytes: int) -> None:
        """Maps the arena.

        Raises:
          ConfigError: this machine cannot map that much.
        """
        try:
            self._mapping = mmap.mmap(
                -1, max(size_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            )
        except (OSError, OverflowError, ValueError) as error:
            raise ConfigError(
                f"arena of {format_size(size_bytes)} cannot be mapped ({error}): "
                "serve a smaller model or use a machine with more memory"
            ) from error
        self._size_bytes = size_bytes
        self._memory = memoryview(self._mapping)
        self._views = _Views()
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._mapping))

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole arena."""
        return self._size_bytes

    @property
    def address(self) -> int:
        """Where the arena starts in this process; a multiple of the page size."""
        return self._address

    @property
    def num_views(self) -> int:
        """How many array views live."""
        return len(self._views.alive)

    def memory(self, offset_bytes: int, size_bytes: int) -> memoryview:
        """The writable bytes of a range; never write where an array view lives."""
        assert 0 <= offset_bytes <= offset_bytes + size_bytes <= self._size_bytes
        return self._memory[offset_bytes : offset_bytes + size_bytes]

    def view(
        self, offset_bytes: int, tensor: TensorLayout, *, keep_alive: object = None
    ) -> jax.Array:
        """A zero-copy array of the tensor, in a block that starts at `offset_bytes`.

        Its bytes must be final, and must stay as they are while the array lives.
        `keep_alive` is referenced exactly as long.
        """
        start = offset_bytes + tensor.offset_bytes
        assert 0 <= start <= start + tensor.size_bytes <= self._size_bytes, tensor
        return dlpack.lend(
            self._address + start,
            tensor.dtype,
            tensor.shape,
            keep_alive=_View(self._views, self._mapping, keep_alive),
        )

    def discard(self, offset_bytes: int, size_bytes: int) -> None:
        """Gives the whole pages inside a range back to the system; they read as 0."""
        start = -(-offset_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (offset_bytes + size_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if start < end:
            self._mapping.madvise(mmap.MADV_DONTNEED, start, end - start)

    def close(self, timeout_s: float = 1.0) -> None:
        """Unmaps the arena; no memory of it may be used afterwards.

        Waits up to `timeout_s` for array views to die: JAX lets go of what it computed
        with a moment after the result is there, on a thread of its own.

        Raises:
          InUseError: array views or memory views of it are still alive.
        """
        if not self._views.wait_until_dead(timeout_s):
            raise InUseError(
                f"arena of {format_size(self._size_bytes)}: {self.num_views} array "
                "views are alive; drop them before closing it"
            )
        self._memory.release()
        try:
            self._mapping.close()
        except BufferError as error:
            self._memory = memoryview(self._mapping)
            raise InUseError(
                f"arena of {format_size(self._size_bytes)}: memory of it is still "
                f"held ({error}); release it before closing the arena"
            ) from error


class _Views:
    """Which views of one arena live.

    Views die on any thread and amid anything, so no lock: set operations are atomic,
    and `SimpleQueue.put` is made to be called from `__del__`.
    """

    def __init__(self) -> None:
        self.alive: set[int] = set()
        self._deaths: queue.SimpleQueue[None] | None = None

    def remove(self, view: int) -> None:
        """Notes a death."""
        self.alive.discard(view)
        deaths = self._deaths
        if deaths is not None:
            deaths.put(None)

    def wait_until_dead(self, timeout_s: float) -> bool:
        """Whether none lives, now or after the wait."""
        deaths: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._deaths = deaths
        end_s = time.monotonic() + timeout_s
        if self.alive:  # Newer versions of numpy leave cycles around bfloat16 views.
            gc.collect()
        while self.alive:
            left_s = end_s - time.monotonic()
            try:
                deaths.get(timeout=max(left_s, 0))
            except queue.Empty:
                break
        self._deaths = None
        return not self.alive


class _View:
    """Lives as long as one array view: keeps its memory mapped, and is counted."""

    def __init__(self, views: _Views, mapping: mmap.mmap, keep_alive: object) -> None:
        self._views, self._mapping, self._keep_alive = views, mapping, keep_alive
        views.alive.add(id(self))

    def __del__(self) -> None:
        self._views.remove(id(self))
