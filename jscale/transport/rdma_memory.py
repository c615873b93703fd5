"""Which memory of this process peers may write to, on which rails, by which keys."""

import bisect
import dataclasses
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

from jscale.core.errors import TransportError
from jscale.core.spans import Bytes, DeviceSpan
from jscale.transport.rdma_endpoint import REGIONS_MAX, Region
from jscale.transport.rdma_rail import Rail, address_of
from jscale.transport.rdma_wire import Place


@dataclasses.dataclass(frozen=True)
class Registration:
    """A region, with what keeps it: a memory region of verbs for each rail."""

    region: Region
    held: tuple[Any, ...]
    owner: object
    is_private: bool


class RegisteredMemory:
    """All regions of a process. Thread-safe."""

    def __init__(self, rails: Sequence[Rail], *, is_read: bool) -> None:
        self._rails = rails
        self._is_read = is_read
        self._lock = threading.Lock()
        self._numbers = itertools.cycle(range(REGIONS_MAX))
        self._starts: list[int] = []
        self._registrations: list[Registration] = []
        self._by_number: dict[int, Registration] = {}

    @property
    def regions(self) -> list[Region]:
        """What all peers are told of."""
        with self._lock:
            return [each.region for each in self._registrations if not each.is_private]

    def add(self, memory: memoryview, *, is_private: bool = False) -> Region:
        """Registers host memory, which stays where it is until `remove` or `close`.

        Args:
          memory: writable.
          is_private: of one connection, which tells its peer and calls `remove`.

        Raises:
          TransportError: a device does not take it.
        """
        return self._add_at(address_of(memory), memory, is_private=is_private)

    def add_device(
        self, span: DeviceSpan, dmabuf: Callable[[], int]
    ) -> tuple[Region, str]:
        """Registers memory of an accelerator; the region, and how it is reached.

        Raises:
          TransportError: it cannot be; says why.
        """
        try:
            fd = dmabuf()
            held = self._on_each_rail(
                lambda rail: rail.register_dmabuf(
                    fd, span.nbytes, is_read=self._is_read
                )
            )
            return self._keep(held, span.address, 0, span), "dmabuf"
        except (OSError, TransportError) as error:
            why_no_dmabuf = error
        try:
            return self._add_at(span.address, span), "peermem"
        except TransportError as error:
            raise TransportError(
                f"cannot reach the accelerator's memory: by DMA-BUF: {why_no_dmabuf}; "
                f"by nvidia-peermem: {error}"
            ) from error

    def remove(self, number: int) -> None:
        """Takes a region back; no peer can reach it any more."""
        with self._lock:
            registration = self._by_number.pop(number)
            index = self._registrations.index(registration)
            del self._registrations[index], self._starts[index]
        for held in registration.held:
            held.close()

    def find(self, data: Bytes) -> Place | None:
        """Where the bytes lie in registered memory; None: not within one region."""
        if not data.nbytes:
            return None
        address = data.address if isinstance(data, DeviceSpan) else address_of(data)
        with self._lock:
            index = bisect.bisect(self._starts, address) - 1
            if index < 0:
                return None
            offset_bytes = address - self._starts[index]
            region = self._registrations[index].region
        if offset_bytes + data.nbytes > region.size_bytes:
            return None
        return Place(region.number, offset_bytes)

    def local(self, place: Place, size_bytes: int, rail: int) -> tuple[int, int, int]:
        """Address, size and local key of bytes, as requests on a rail name them."""
        registration = self._by_number[place.region]
        address = registration.region.address_of(place.offset_bytes, size_bytes)
        return address, size_bytes, int(registration.held[rail].lkey)

    def close(self) -> None:
        """Takes every region back."""
        for number in list(self._by_number):
            self.remove(number)

    def _add_at(
        self, address: int, memory: Bytes, *, is_private: bool = False
    ) -> Region:
        held = self._on_each_rail(
            lambda rail: rail.register(address, memory.nbytes, is_read=self._is_read)
        )
        return self._keep(held, address, address, memory, is_private=is_private)

    def _on_each_rail(self, make: Callable[[Rail], Any]) -> tuple[Any, ...]:
        held: list[Any] = []
        try:
            for rail in self._rails:
                held.append(make(rail))
        except TransportError:
            for region in held:
                region.close()
            raise
        return tuple(held)

    def _keep(
        self,
        held: tuple[Any, ...],
        start: int,
        address: int,
        memory: Bytes,
        *,
        is_private: bool = False,
    ) -> Region:
        """Notes a region that starts at `start` for us, at `address` for devices.

        Its number is one that was free for longest: peers forget none.
        """
        rkeys = tuple(int(region.rkey) for region in held)
        with self._lock:
            number = next(n for n in self._numbers if n not in self._by_number)
            region = Region(number, address, memory.nbytes, rkeys)
            registration = Registration(region, held, memory, is_private)
            index = bisect.bisect(self._starts, start)
            self._starts.insert(index, start)
            self._registrations.insert(index, registration)
            self._by_number[region.number] = registration
        return region
