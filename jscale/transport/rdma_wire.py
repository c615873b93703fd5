"""What two ends of an RDMA connection say within it: offers and control words. Pure.

Chunks are not sent but offered: an OFFER frame in the stream says how large the chunk
is and what its checksum will be. Offers are numbered from 0 on by both sides alike, in
the order in which they are in the stream. The target answers by a control word, and
the write that follows carries the offer's number as its immediate.

A control word is 16 bytes, little-endian; unused numbers are 0:

    0     1     2       4       8
    kind  zero  region  number  offset
    u8    u8    u16     u32     u64
"""

import dataclasses
import enum
import struct

from jscale.core.chunks import CHUNK_SIZE_BYTES_MAX
from jscale.core.errors import TransportError

WORD_SIZE_BYTES = 16
NUMBERS = 1 << 32
"""Offers are counted modulo this: an immediate has 32 bits."""

_WORD = struct.Struct("<BBHIQ")
_OFFER = struct.Struct("<IIHHQ")


class Immediate(enum.IntEnum):
    """What the immediate of a SEND says of its bytes."""

    STREAM = 0
    WORDS = 1


class WordKind(enum.IntEnum):
    """What a control word says."""

    GRANT = 1
    """Write the chunk of this offer there."""
    REFUSE = 2
    """The chunk of this offer is not needed."""
    TAKEN = 3
    """The chunk of this offer was read: its memory is yours again."""
    CREDIT = 4
    """So many (`number`) SENDs of the stream more may be on their way."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where bytes lie in memory that a process has registered."""

    region: int
    offset_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Word:
    """One control word."""

    kind: WordKind
    number: int
    place: Place | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """What an OFFER frame says in its header.

    Attributes:
      size_bytes: of the chunk.
      crc32c: of the chunk.
      place: where the target reads it; None: it is written once there is a grant.
    """

    size_bytes: int
    crc32c: int
    place: Place | None = None


def encode_word(word: Word) -> bytes:
    """The bytes of a control word."""
    place = word.place or Place(0, 0)
    return _WORD.pack(word.kind, 0, place.region, word.number, place.offset_bytes)


def decode_words(data: bytes) -> list[Word]:
    """The control words that a SEND carried.

    Raises:
      TransportError: `encode_word` did not make them.
    """
    if not data or len(data) % WORD_SIZE_BYTES:
        raise TransportError(
            f"control words of {len(data)} bytes; each has {WORD_SIZE_BYTES}"
        )
    return [
        _decode_word(data[start : start + WORD_SIZE_BYTES])
        for start in range(0, len(data), WORD_SIZE_BYTES)
    ]


def encode_offer(offer: Offer) -> bytes:
    """The header of an OFFER frame."""
    place = offer.place or Place(0, 0)
    return _OFFER.pack(
        offer.size_bytes,
        offer.crc32c,
        offer.place is not None,
        place.region,
        place.offset_bytes,
    )


def decode_offer(header: bytes) -> Offer:
    """What the header of an OFFER frame says.

    Raises:
      TransportError: `encode_offer` did not make it.
    """
    if len(header) != _OFFER.size:
        raise TransportError(f"offer of {len(header)} bytes, expected {_OFFER.size}")
    size_bytes, crc, has_place, region, offset_bytes = _OFFER.unpack(header)
    if size_bytes > CHUNK_SIZE_BYTES_MAX:
        raise TransportError(
            f"offer of a chunk of {size_bytes} bytes; at most {CHUNK_SIZE_BYTES_MAX}"
        )
    if has_place not in (0, 1) or (not has_place and (region or offset_bytes)):
        raise TransportError(f"offer whose place is {has_place}: a newer peer?")
    place = Place(region, offset_bytes) if has_place else None
    return Offer(size_bytes, crc, place)


def _decode_word(data: bytes) -> Word:
    kind, zero, region, number, offset_bytes = _WORD.unpack(data)
    if zero:
        raise TransportError(f"control word with {zero} in its second byte")
    match kind:
        case WordKind.GRANT:
            return Word(WordKind.GRANT, number, Place(region, offset_bytes))
        case WordKind.REFUSE | WordKind.TAKEN | WordKind.CREDIT:
            if region or offset_bytes:
                raise TransportError(
                    f"control word {WordKind(kind).name} with a place: a newer peer?"
                )
            return Word(WordKind(kind), number)
        case _:
            raise TransportError(f"control word of unknown kind {kind}: a newer peer?")
