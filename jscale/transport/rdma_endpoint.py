"""What two ends of an RDMA connection say over the socket beside it. Pure.

First how to reach each other's queue pairs, once they have proved to be of one cluster;
then which memory may be written to; at the end, why it ends. Nothing else of a process
is told. Each note is `kind u8, zero u8, length u16` and its payload, little-endian.
"""

import dataclasses
import enum
import struct

from jscale.core.errors import TransportError

PSN_MAX = (1 << 24) - 1
QP_NUM_MAX = (1 << 24) - 1
RAILS_MAX = 32
REGIONS_MAX = 1 << 16
REASON_SIZE_BYTES_MAX = 1024
GID_SIZE_BYTES = 16

_HEAD = struct.Struct("<BBH")
_RAIL = struct.Struct("<16sHIIBBH")
_REGION = struct.Struct("<HQQ")
_RKEY = struct.Struct("<I")
_BYE = struct.Struct("<Q")
_MTUS = (1, 2, 3, 4, 5)
"""256 to 4096 bytes, as verbs number them (enum ibv_mtu)."""


@dataclasses.dataclass(frozen=True)
class RailEndpoint:
    """One queue pair, as the peer must know it to connect its own.

    Attributes:
      gid: address of the port, 16 bytes.
      lid: address of the port within an InfiniBand subnet; 0 on Ethernet.
      qp_num: the queue pair's number.
      psn: number of the first packet that it will send.
      mtu: of the port, as verbs number them.
      reads: RDMA READs that it answers at once.
    """

    gid: bytes
    lid: int
    qp_num: int
    psn: int
    mtu: int
    reads: int

    def __post_init__(self) -> None:
        is_right = (
            len(self.gid) == GID_SIZE_BYTES
            and 0 <= self.lid < 1 << 16
            and 0 < self.qp_num <= QP_NUM_MAX
            and 0 <= self.psn <= PSN_MAX
            and self.mtu in _MTUS
            and 0 < self.reads <= 255
        )
        if not is_right:
            raise TransportError(f"{self} is no queue pair: a newer peer?")


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """All queue pairs of one end: one for each rail, in the order of the rails."""

    rails: tuple[RailEndpoint, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.rails) <= RAILS_MAX:
            raise TransportError(
                f"an endpoint of {len(self.rails)} rails; 1 to {RAILS_MAX} can be used"
            )


@dataclasses.dataclass(frozen=True)
class Region:
    """Memory that the peer may write to (and read from, where it is to pull).

    Attributes:
      number: how control words call it.
      address: where it starts.
      size_bytes: how long it is.
      rkeys: the key that opens it, on each rail.
    """

    number: int
    address: int
    size_bytes: int
    rkeys: tuple[int, ...]

    def __post_init__(self) -> None:
        is_right = (
            0 <= self.number < REGIONS_MAX
            and self.size_bytes > 0
            and self.address + self.size_bytes <= 1 << 64
            and 1 <= len(self.rkeys) <= RAILS_MAX
        )
        if not is_right:
            raise TransportError(f"{self} is no memory: a newer peer?")

    def address_of(self, offset_bytes: int, size_bytes: int) -> int:
        """Where these bytes of it lie.

        Raises:
          TransportError: they are not within it.
        """
        if offset_bytes + size_bytes > self.size_bytes:
            raise TransportError(
                f"{size_bytes} bytes at {offset_bytes} of region {self.number}, which "
                f"has {self.size_bytes}"
            )
        return self.address + offset_bytes


@dataclasses.dataclass(frozen=True)
class Ready:
    """The caller's queue pairs are connected: the listener may send."""


@dataclasses.dataclass(frozen=True)
class Refused:
    """There will be no RDMA connection."""

    reason: str


@dataclasses.dataclass(frozen=True)
class Bye:
    """The last note: nothing more is sent.

    Attributes:
      num_sent: SENDs and writes with an immediate that were sent and arrived, on all
        rails: what the peer has not taken yet, it will find.
      reason: why, if it is not that somebody closed the connection.
    """

    num_sent: int
    reason: str = ""


Note = Endpoint | Region | Ready | Refused | Bye


class _Kind(enum.IntEnum):
    ENDPOINT = 1
    REGION = 2
    READY = 3
    REFUSED = 4
    BYE = 5


def encode_note(note: Note) -> bytes:
    """The bytes of a note."""
    match note:
        case Endpoint(rails):
            kind = _Kind.ENDPOINT
            payload = b"".join(_encode_rail(rail) for rail in rails)
        case Region(number, address, size_bytes, rkeys):
            kind = _Kind.REGION
            payload = _REGION.pack(number, address, size_bytes)
            payload += b"".join(_RKEY.pack(rkey) for rkey in rkeys)
        case Ready():
            kind, payload = _Kind.READY, b""
        case Refused(reason):
            kind, payload = _Kind.REFUSED, _encode_reason(reason)
        case Bye(num_sent, reason):
            kind = _Kind.BYE
            payload = _BYE.pack(num_sent) + _encode_reason(reason)
    return _HEAD.pack(kind, 0, len(payload)) + payload


class NoteReader:
    """Cuts the bytes of a socket into notes. Mutable; owned by one thread at a time."""

    def __init__(self) -> None:
        self._left = b""

    def feed(self, data: bytes) -> list[Note]:
        """The notes that are complete with these bytes.

        Raises:
          TransportError: `encode_note` did not make them.
        """
        self._left += data
        notes = []
        while len(self._left) >= _HEAD.size:
            kind, zero, size_bytes = _HEAD.unpack_from(self._left)
            if zero or kind not in iter(_Kind):
                raise TransportError(f"note of unknown kind {kind}: a newer peer?")
            end = _HEAD.size + size_bytes
            if len(self._left) < end:
                break
            notes.append(_decode(_Kind(kind), self._left[_HEAD.size : end]))
            self._left = self._left[end:]
        return notes


def _decode(kind: _Kind, payload: bytes) -> Note:
    try:
        match kind:
            case _Kind.ENDPOINT:
                fields = _RAIL.iter_unpack(payload)
                return Endpoint(tuple(_decode_rail(*field) for field in fields))
            case _Kind.REGION:
                number, address, size_bytes = _REGION.unpack_from(payload)
                rkeys = _RKEY.iter_unpack(payload[_REGION.size :])
                return Region(
                    number, address, size_bytes, tuple(rkey for (rkey,) in rkeys)
                )
            case _Kind.READY:
                _require(not payload)
                return Ready()
            case _Kind.REFUSED:
                return Refused(_decode_reason(payload))
            case _Kind.BYE:
                (num_sent,) = _BYE.unpack_from(payload)
                return Bye(num_sent, _decode_reason(payload[_BYE.size :]))
    except struct.error as error:
        raise TransportError(
            f"{kind.name} note of {len(payload)} bytes: a newer peer?"
        ) from error


def _encode_rail(rail: RailEndpoint) -> bytes:
    return _RAIL.pack(
        rail.gid, rail.lid, rail.qp_num, rail.psn, rail.mtu, rail.reads, 0
    )


def _decode_rail(
    gid: bytes, lid: int, qp_num: int, psn: int, mtu: int, reads: int, zero: int
) -> RailEndpoint:
    _require(not zero)
    return RailEndpoint(gid, lid, qp_num, psn, mtu, reads)


def _encode_reason(reason: str) -> bytes:
    return reason.encode()[:REASON_SIZE_BYTES_MAX]


def _decode_reason(payload: bytes) -> str:
    _require(len(payload) <= REASON_SIZE_BYTES_MAX)
    return payload.decode(errors="replace")


def _require(is_right: bool) -> None:
    if not is_right:
        raise TransportError("a malformed note: a newer peer?")
