"""Bytes that the processor cannot reach itself: a range of an accelerator's memory."""

import abc


class DeviceSpan(abc.ABC):
    """A range of memory of an accelerator, as an RDMA device can be told of it.

    Stands beside `memoryview` wherever bytes may lie in either. Thread-safe.
    """

    @property
    @abc.abstractmethod
    def address(self) -> int:
        """Where it starts, in the address space that accelerator and process share."""

    @property
    @abc.abstractmethod
    def nbytes(self) -> int:
        """How many bytes it has."""

    @abc.abstractmethod
    def read(self) -> memoryview:
        """A copy of its bytes in host memory; for checksums, and for other links."""

    @abc.abstractmethod
    def write(self, data: memoryview) -> None:
        """Copies bytes of the same number there; returns when `data` may be changed."""


Bytes = memoryview | DeviceSpan
"""Where bytes of a chunk lie."""


def in_host_memory(data: Bytes) -> memoryview:
    """The bytes where the processor can read them: themselves, or a copy."""
    return data if isinstance(data, memoryview) else data.read()
