"""Frames: how a byte stream is cut into messages and chunks. Pure.

    0      4    5     6           8     16     20           24       28       32
    magic  kind zero  header_len  plan  chunk  payload_len  crc32c   head_crc
    u32    u8   u8    u16         u64   u32    u32          u32      u32

Little-endian; then `header_len` bytes of header and `payload_len` bytes of payload.
`crc32c` covers the payload, then the header; `head_crc` the 28 bytes before it.
"""

import enum
import struct

import msgspec

from jscale.core.chunks import CHUNK_SIZE_BYTES_MAX
from jscale.core.errors import TransportError
from jscale.core.units import KIB, MIB
from jscale.transport.checksum import crc32c

HEAD = struct.Struct("<IBxHQIIII")
HEAD_SIZE_BYTES = HEAD.size
HEADER_SIZE_BYTES_MAX = 64 * KIB - 1
MESSAGE_SIZE_BYTES_MAX = 64 * MIB
"""Activations of a long prefill fit; a damaged length must not eat the memory."""

_MAGIC = 0x3163736A  # "jsc1"
_CHECKED = struct.Struct("<IBxHQIII")


class FrameKind(enum.IntEnum):
    """What a frame carries."""

    HELLO = 1
    MESSAGE = 2
    CHUNK = 3
    ANNOUNCE = 4
    ASK = 5
    OFFER = 6
    """In place of a chunk whose bytes take another way."""


class Frame(msgspec.Struct, frozen=True):
    """The head of a frame; unused numbers are 0.

    Made and read for every chunk, hence no dataclass: a quarter of the time.
    """

    kind: FrameKind
    plan: int = 0
    chunk: int = 0
    header_size_bytes: int = 0
    payload_size_bytes: int = 0
    crc32c: int = 0

    def __post_init__(self) -> None:
        limit = _PAYLOAD_SIZE_BYTES_MAX[self.kind]
        if self.payload_size_bytes > limit:
            raise TransportError(
                f"a {self.kind.name} frame of {self.payload_size_bytes} bytes; "
                f"at most {limit} fit, send it in pieces"
            )
        if self.header_size_bytes > HEADER_SIZE_BYTES_MAX:
            raise TransportError(
                f"a message header of {self.header_size_bytes} bytes; at most "
                f"{HEADER_SIZE_BYTES_MAX} fit, move what is long to the payload"
            )

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole frame on the wire."""
        return HEAD_SIZE_BYTES + self.header_size_bytes + self.payload_size_bytes


_PAYLOAD_SIZE_BYTES_MAX = {
    FrameKind.HELLO: 4 * KIB,
    FrameKind.MESSAGE: MESSAGE_SIZE_BYTES_MAX,
    FrameKind.CHUNK: CHUNK_SIZE_BYTES_MAX,
    FrameKind.ANNOUNCE: MIB,
    FrameKind.ASK: 0,
    FrameKind.OFFER: 0,
}
_KINDS = {int(kind): kind for kind in FrameKind}


def encode_head(frame: Frame) -> bytes:
    """The `HEAD_SIZE_BYTES` that go before a frame's header and payload."""
    checked = _CHECKED.pack(
        _MAGIC,
        frame.kind,
        frame.header_size_bytes,
        frame.plan,
        frame.chunk,
        frame.payload_size_bytes,
        frame.crc32c,
    )
    return checked + crc32c(checked).to_bytes(4, "little")


def decode_head(head: bytes) -> Frame:
    """The frame whose head this is.

    Raises:
      TransportError: these bytes were not made by `encode_head`, or were damaged, so
        that the stream cannot be read any further.
    """
    if len(head) != HEAD_SIZE_BYTES:
        raise TransportError(f"frame head of {len(head)} bytes, not {HEAD_SIZE_BYTES}")
    magic, kind, header_size_bytes, plan, chunk, payload_size_bytes, crc, head_crc = (
        HEAD.unpack(head)
    )
    if magic != _MAGIC:
        raise TransportError(
            f"frame starts with {magic:#010x}, expected {_MAGIC:#010x}: "
            "the other side does not speak this protocol"
        )
    actual = crc32c(head[:-4])
    if actual != head_crc:
        raise TransportError(
            f"frame head has crc32c {actual:#010x}, expected {head_crc:#010x}"
        )
    known = _KINDS.get(kind)
    if known is None:
        raise TransportError(f"frame of unknown kind {kind}: a newer peer?")
    return Frame(
        kind=known,
        plan=plan,
        chunk=chunk,
        header_size_bytes=header_size_bytes,
        payload_size_bytes=payload_size_bytes,
        crc32c=crc,
    )
