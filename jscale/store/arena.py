"""The arena: one range of memory that holds every byte of a worker's model."""

import abc
import dataclasses
from collections.abc import Callable

import jax

from jscale.core.errors import JscaleError
from jscale.core.layout import TensorLayout
from jscale.core.spans import Bytes, DeviceSpan


class InUseError(JscaleError):
    """Memory that somebody still reads cannot be given away."""


@dataclasses.dataclass(frozen=True)
class ArenaSizes:
    """What an arena must have room for.

    Attributes:
      blocks_bytes: the blocks, from its start: where the model computes.
      host_bytes: what follows, which the processor reads wherever blocks are.
      chunk_bytes: what is put there and read at once, at most.
    """

    blocks_bytes: int
    host_bytes: int
    chunk_bytes: int

    @property
    def total_bytes(self) -> int:
        """Both parts."""
        return self.blocks_bytes + self.host_bytes


@dataclasses.dataclass(frozen=True)
class StagingCounts:
    """How often the pinned memory that chunks pass through was too small.

    Attributes:
      num_waits: slots that came only when the oldest copy was done.
      num_spares: slots of ordinary memory, as all others were being written.
    """

    num_waits: int = 0
    num_spares: int = 0

    def __add__(self, other: "StagingCounts") -> "StagingCounts":
        return StagingCounts(
            self.num_waits + other.num_waits, self.num_spares + other.num_spares
        )


class Arena(abc.ABC):
    """Lends places for bytes that come, reads what is there, and makes array views.

    Offsets count from its start. Thread-safe; who writes where, and when, is up to the
    caller: never where an array view lives.
    """

    @property
    @abc.abstractmethod
    def size_bytes(self) -> int:
        """Bytes of the whole arena."""

    @property
    @abc.abstractmethod
    def num_views(self) -> int:
        """How many array views live."""

    # --- bytes in ------------------------------------------------------------------

    @abc.abstractmethod
    def slot(self, offset_bytes: int, size_bytes: int) -> Bytes:
        """Where to put the bytes of a range that begins there, of a chunk at most.

        `landed` or `failed` follows for the same offset; until then the slot is the
        caller's. May wait for copies to be done, but never for another slot.
        """

    @abc.abstractmethod
    def host_slot(self, offset_bytes: int, size_bytes: int) -> memoryview:
        """The same for who writes by the processor or from a file: in host memory.

        It starts at a multiple of 4096 if the offset does.
        """

    @abc.abstractmethod
    def landed(self, offset_bytes: int) -> None:
        """The slot for that offset has its bytes; they may still be on their way.

        Whatever the arena itself does from now on (`read`, `digest`, `view`) finds
        them in place.
        """

    @abc.abstractmethod
    def failed(self, offset_bytes: int) -> None:
        """The slot for that offset holds rubbish and is given back."""

    @abc.abstractmethod
    def write(self, offset_bytes: int, data: memoryview) -> None:
        """Puts bytes there, like a slot that landed.

        Returns when `data` may be changed, unless it lies in memory that was given to
        `pin`: that must stay as it is until `synchronize` returns.
        """

    @abc.abstractmethod
    def synchronize(self) -> None:
        """Returns when everything that landed is in its place."""

    # --- bytes out -----------------------------------------------------------------

    @abc.abstractmethod
    def read(self, offset_bytes: int, size_bytes: int) -> Bytes:
        """The bytes of a range, to be sent: read-only, where they are, or a copy."""

    @abc.abstractmethod
    def digest(self, offset_bytes: int, size_bytes: int) -> str:
        """The digest of a range of blocks as it lies there, hexadecimal."""

    @abc.abstractmethod
    def memory(self, offset_bytes: int, size_bytes: int) -> memoryview:
        """The writable bytes of a range of host memory: of `host_bytes`, or any."""

    @abc.abstractmethod
    def view(
        self, offset_bytes: int, tensor: TensorLayout, *, keep_alive: object = None
    ) -> jax.Array:
        """A zero-copy array of the tensor, in a block that starts at `offset_bytes`.

        Its bytes must be final, and must stay as they are while the array lives.
        `keep_alive` is referenced exactly as long.
        """

    # --- what devices must know ------------------------------------------------------

    @property
    @abc.abstractmethod
    def host_memory(self) -> memoryview:
        """Host memory that slots and reads may lie in: what to register."""

    @property
    @abc.abstractmethod
    def device_memory(self) -> DeviceSpan | None:
        """Memory of an accelerator where blocks lie; None: in `host_memory`."""

    @abc.abstractmethod
    def export_dmabuf(self) -> int:
        """A file descriptor of `device_memory` for other devices; the caller's.

        Raises:
          DeviceMemoryError: the accelerator or its driver cannot.
        """

    @abc.abstractmethod
    def reach_directly(self) -> None:
        """From now on slots and reads are in `device_memory`: the transport can."""

    @property
    @abc.abstractmethod
    def is_direct(self) -> bool:
        """Whether slots are in `device_memory`."""

    @abc.abstractmethod
    def stay_in_place(self) -> None:
        """Host memory must keep its pages from now on: a device writes there."""

    @abc.abstractmethod
    def pin(self, memory: memoryview) -> Callable[[], None]:
        """Tells the accelerator of host memory that `write` will often copy from.

        Returns what undoes it, to be called before the memory is given back.
        """

    @property
    @abc.abstractmethod
    def staging(self) -> StagingCounts:
        """How staging went so far."""

    @abc.abstractmethod
    def discard(self, offset_bytes: int, size_bytes: int) -> None:
        """Nobody needs the bytes of a range: gives back what the system can use."""

    @abc.abstractmethod
    def close(self, timeout_s: float = 1.0) -> None:
        """Gives all memory back; none of it may be used afterwards.

        Waits up to `timeout_s` for array views to die: JAX lets go of what it computed
        with a moment after the result is there, on a thread of its own.

        Raises:
          InUseError: array views or memory views of it are still alive.
        """
