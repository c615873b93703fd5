"""Which array views of one arena live, so that it is not unmapped below them."""

import gc
import queue
import time

import jax

from jscale.core.layout import TensorLayout
from jscale.store import dlpack


class Views:
    """Lends arrays and counts those that live.

    Views die on any thread and amid anything, so no lock: set operations are atomic,
    and `SimpleQueue.put` is made to be called from `__del__`.
    """

    def __init__(self, device: tuple[int, int], memory: object) -> None:
        """Views of memory of a DLPack device, (type, index).

        `memory` is referenced as long as a view lives.
        """
        self._device, self._memory = device, memory
        self._alive: set[int] = set()
        self._deaths: queue.SimpleQueue[None] | None = None

    @property
    def num_alive(self) -> int:
        """How many array views live."""
        return len(self._alive)

    def lend(self, address: int, tensor: TensorLayout, keep_alive: object) -> jax.Array:
        """A zero-copy array of the tensor whose bytes start at `address`."""
        return dlpack.lend(
            address,
            tensor.dtype,
            tensor.shape,
            device=self._device,
            keep_alive=_View(self, self._memory, keep_alive),
        )

    def wait_until_dead(self, timeout_s: float) -> bool:
        """Whether none lives, now or after the wait."""
        deaths: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._deaths = deaths
        end_s = time.monotonic() + timeout_s
        if self._alive:  # Newer versions of numpy leave cycles around bfloat16 views.
            gc.collect()
        while self._alive:
            left_s = end_s - time.monotonic()
            try:
                deaths.get(timeout=max(left_s, 0))
            except queue.Empty:
                break
        self._deaths = None
        return not self._alive

    def add(self, view: int) -> None:
        """Notes a birth."""
        self._alive.add(view)

    def remove(self, view: int) -> None:
        """Notes a death."""
        self._alive.discard(view)
        deaths = self._deaths
        if deaths is not None:
            deaths.put(None)


class _View:
    """Lives as long as one array view: keeps its memory mapped, and is counted."""

    def __init__(self, views: Views, memory: object, keep_alive: object) -> None:
        self._views, self._memory, self._keep_alive = views, memory, keep_alive
        views.add(id(self))

    def __del__(self) -> None:
        self._views.remove(id(self))
