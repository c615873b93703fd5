"""What the store needs of an accelerator: a range of its memory, and copies.

Two kinds: `CudaMemory` by the driver of the accelerator, and `EmulatedMemory`, which
lets all that is above it run and be tested without one.
"""

import abc
import dataclasses

from jscale.core.errors import JscaleError

DEVICE_MEMORY_KINDS = ("auto", "host", "emulated")
"""Where a worker may be told to keep blocks; auto: on the GPU if JAX uses one."""


class DeviceMemoryError(JscaleError):
    """The accelerator or its driver refused."""


@dataclasses.dataclass(frozen=True)
class MemoryInfo:
    """Bytes of an accelerator's memory, and those that nobody has taken."""

    free_bytes: int
    total_bytes: int


class Copy(abc.ABC):
    """A copy that was begun. Thread-safe."""

    @property
    @abc.abstractmethod
    def is_done(self) -> bool:
        """Whether its bytes are there.

        Raises:
          DeviceMemoryError: it failed.
        """

    @abc.abstractmethod
    def wait(self) -> None:
        """Returns when its bytes are there.

        Raises:
          DeviceMemoryError: it failed.
        """


class DeviceMemory(abc.ABC):
    """One accelerator, as far as its memory is concerned. Thread-safe.

    Copies in are done in the order in which they were begun, and so are copies out; a
    copy out finds what every copy in that was begun before it brought.
    """

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What it is called: for the log and for benches."""

    @property
    @abc.abstractmethod
    def dlpack_device(self) -> tuple[int, int]:
        """What DLPack calls it: (type, index)."""

    @abc.abstractmethod
    def info(self) -> MemoryInfo:
        """How much memory there is now."""

    @abc.abstractmethod
    def allocate(self, size_bytes: int) -> int:
        """The address of memory for that many bytes, a multiple of 4096.

        Raises:
          DeviceMemoryError: there is not that much.
        """

    @abc.abstractmethod
    def free(self, address: int) -> None:
        """Gives back what `allocate` returned; no copy may be under way there."""

    @abc.abstractmethod
    def pin(self, memory: memoryview) -> None:
        """Locks host memory in place, which makes copies of it fast.

        Raises:
          DeviceMemoryError: the system does not let us.
        """

    @abc.abstractmethod
    def unpin(self, memory: memoryview) -> None:
        """Undoes `pin`, for the same memory; no copy of it may be under way."""

    @abc.abstractmethod
    def copy_in(self, address: int, data: memoryview) -> Copy:
        """Begins to copy host memory to the device.

        `data` must stay as it is, and mapped, until the copy is done.
        """

    @abc.abstractmethod
    def copy_out(self, into: memoryview, address: int) -> Copy:
        """Begins to copy the device's memory to the host."""

    @abc.abstractmethod
    def flush(self) -> None:
        """Copies out find from now on what other devices have written here."""

    @abc.abstractmethod
    def settle(self) -> None:
        """Returns when all that was written is what computations will read.

        By copies in that were begun, and by other devices that wrote here.

        Raises:
          DeviceMemoryError: a copy failed.
        """

    @abc.abstractmethod
    def export_dmabuf(self, address: int, size_bytes: int) -> int:
        """A DMA-BUF file descriptor of a range; the caller closes it.

        Args:
          address: of the range, a multiple of 4096.
          size_bytes: of the range, a multiple of 4096.

        Raises:
          DeviceMemoryError: the device or its driver cannot, and why.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Ends what was begun; everything that was allocated is to be free by now."""
