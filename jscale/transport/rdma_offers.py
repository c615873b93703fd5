"""Chunks that one end has offered: from the offer to the write, or to a no. Pure.

The answers come as control words, what is known of the peer's memory over the socket
beside them; a grant in memory not yet heard of waits until it is.
"""

import dataclasses

from jscale.core.errors import TransportError
from jscale.core.spans import Bytes
from jscale.transport.rdma_endpoint import Region
from jscale.transport.rdma_wire import NUMBERS, Place


@dataclasses.dataclass(frozen=True)
class OfferedChunk:
    """A chunk of ours.

    Attributes:
      view: its bytes, kept from being given back.
      place: where they lie.
      is_pulled: the peer reads them; else we write them.
    """

    view: Bytes
    place: Place
    is_pulled: bool

    @property
    def size_bytes(self) -> int:
        """How many bytes."""
        return self.view.nbytes


@dataclasses.dataclass(frozen=True)
class Write:
    """A write that may be posted now.

    Attributes:
      number: of the offer; the write's immediate.
      rail: on which.
      source: the bytes.
      size_bytes: how many.
      address: where they go.
      rkey: what opens it.
      is_last: no other offer of this rail waits for its answer.
    """

    number: int
    rail: int
    source: Place
    size_bytes: int
    address: int
    rkey: int
    is_last: bool


class OfferedChunks:
    """Those that are not done with. Mutable; guarded by its owner."""

    def __init__(self, limit: int, num_rails: int) -> None:
        self._limit = limit
        self._num_rails = num_rails
        self._next = 0
        self._unanswered: dict[int, OfferedChunk] = {}
        self._being_written: dict[int, OfferedChunk] = {}
        self._parked: dict[int, Place] = {}
        self._regions: dict[int, Region] = {}

    def __len__(self) -> int:
        return len(self._unanswered) + len(self._being_written)

    @property
    def is_full(self) -> bool:
        """Whether another must wait."""
        return len(self) >= self._limit

    def open(self, chunk: OfferedChunk) -> int:
        """The number of a new offer."""
        assert not self.is_full, len(self)
        number = self._next
        self._next = (number + 1) % NUMBERS
        self._unanswered[number] = chunk
        return number

    def told(self, region: Region) -> list[Write]:
        """Memory that the peer has told of, and the writes that waited for it.

        Raises:
          TransportError: it has other rails than ours, or holds less than was granted.
        """
        if len(region.rkeys) < self._num_rails:
            raise TransportError(f"{region} is not on all {self._num_rails} rails")
        self._regions[region.number] = region
        ready = [
            (number, place)
            for number, place in self._parked.items()
            if place.region == region.number
        ]
        return [write for answer in ready for write in self.granted(*answer)]

    def granted(self, number: int, place: Place) -> list[Write]:
        """The write of a granted offer; none yet if its memory is not known yet.

        Raises:
          TransportError: it was not asked, or the memory is too small.
        """
        chunk = self._unanswered.get(number)
        if chunk is None or chunk.is_pulled:
            raise TransportError(f"a grant of offer {number}, which was not made")
        region = self._regions.get(place.region)
        if region is None:
            self._parked[number] = place
            return []
        self._parked.pop(number, None)
        address = region.address_of(place.offset_bytes, chunk.size_bytes)
        del self._unanswered[number]
        self._being_written[number] = chunk
        rail = self.rail_of(number)
        write = Write(
            number=number,
            rail=rail,
            source=chunk.place,
            size_bytes=chunk.size_bytes,
            address=address,
            rkey=region.rkeys[rail],
            is_last=not self.has_unanswered(rail),
        )
        return [write]

    def refused(self, number: int) -> None:
        """The peer does not need it.

        Raises:
          TransportError: it was not asked, or has answered before.
        """
        if number in self._parked or self._unanswered.pop(number, None) is None:
            raise TransportError(f"a refusal of offer {number}, which was not made")

    def was_read(self, number: int) -> None:
        """The peer has read it.

        Raises:
          TransportError: it was not to be.
        """
        chunk = self._unanswered.pop(number, None)
        if chunk is None or not chunk.is_pulled:
            raise TransportError(f"offer {number} was read, and not made to be")

    def was_written(self, number: int) -> None:
        """Our write of it has arrived."""
        del self._being_written[number]

    def has_unanswered(self, rail: int) -> bool:
        """Whether an offer that will use this rail waits for its answer."""
        return any(self.rail_of(number) == rail for number in self._unanswered)

    def rail_of(self, number: int) -> int:
        """Chunks are spread over all rails in turn."""
        return number % self._num_rails

    def knows(self, region: int) -> bool:
        """Whether the peer has told of that memory."""
        return region in self._regions

    def remote(self, place: Place, size_bytes: int, rail: int) -> tuple[int, int]:
        """Address and key of bytes in memory of the peer that is known.

        Raises:
          TransportError: they are outside of it.
        """
        region = self._regions[place.region]
        return region.address_of(place.offset_bytes, size_bytes), region.rkeys[rail]
