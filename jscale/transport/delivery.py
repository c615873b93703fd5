"""What is done with a frame that arrives, whatever carried it."""

import abc

from absl import logging

from jscale.core.errors import TransportError
from jscale.core.spans import Bytes, DeviceSpan
from jscale.core.units import KIB
from jscale.transport.base import Connection, Handler
from jscale.transport.checksum import crc32c
from jscale.transport.framing import Frame, FrameKind

_DISCARD_SIZE_BYTES = 64 * KIB


class FrameBody(abc.ABC):
    """The bytes after a frame's head: first the header, then the payload."""

    @abc.abstractmethod
    def read_into(self, view: memoryview) -> None:
        """Fills the view with the next bytes.

        Raises:
          PeerLostError: the other side is gone.
        """

    def read_summed(self, view: memoryview) -> int:
        """As `read_into`; returns the CRC32C of the bytes."""
        self.read_into(view)
        return crc32c(view)

    @abc.abstractmethod
    def arrived(self, frame: Frame) -> None:
        """Waits until the emulated link has carried the frame."""


def deliver(
    frame: Frame, body: FrameBody, connection: Connection, handler: Handler
) -> None:
    """Reads the rest of the frame and tells the handler.

    Raises:
      PeerLostError: the other side is gone.
      TransportError: the frame cannot be what the peer meant to send; what follows
        on the connection cannot be trusted.
    """
    if frame.kind is FrameKind.CHUNK:
        _deliver_chunk(frame, body, connection, handler)
        return
    header = bytearray(frame.header_size_bytes)
    payload = bytearray(frame.payload_size_bytes)
    body.read_into(memoryview(header))
    body.read_into(memoryview(payload))
    body.arrived(frame)
    crc = crc32c(payload, bytes(header))
    if crc != frame.crc32c:
        raise TransportError(
            f"{frame.kind.name} frame from {connection.peer}: crc32c {crc:#010x}, "
            f"expected {frame.crc32c:#010x}; closing the connection"
        )
    match frame.kind:
        case FrameKind.MESSAGE:
            handler.message(connection, bytes(header), memoryview(payload))
        case FrameKind.ANNOUNCE:
            handler.announced(connection, frame.plan, bytes(payload))
        case FrameKind.ASK:
            handler.asked(connection, frame.plan, frame.chunk)
        case _:
            raise TransportError(
                f"{frame.kind.name} frame from {connection.peer} after the hello"
            )


def check_size(frame: Frame, slot: Bytes, connection: Connection) -> None:
    """Refuses a chunk that does not fit where it belongs.

    Raises:
      TransportError: it has another size.
    """
    if slot.nbytes != frame.payload_size_bytes:
        raise TransportError(
            f"chunk {frame.chunk} of plan {frame.plan} from {connection.peer} "
            f"has {frame.payload_size_bytes} bytes, expected {slot.nbytes}: "
            "the members do not share one chunk table"
        )


def check_chunk(frame: Frame, data: memoryview, connection: Connection) -> bool:
    """Whether the bytes are those that were sent; the log says if not."""
    return check_sum(frame, crc32c(data), connection)


def check_sum(frame: Frame, crc: int, connection: Connection) -> bool:
    """As `check_chunk`, for bytes whose CRC32C is known."""
    if crc != frame.crc32c:
        logging.warning(
            "plan=%d chunk=%d from=%s crc32c=%#010x expected=%#010x: dropped",
            frame.plan,
            frame.chunk,
            connection.peer,
            crc,
            frame.crc32c,
        )
    return crc == frame.crc32c


def _deliver_chunk(
    frame: Frame, body: FrameBody, connection: Connection, handler: Handler
) -> None:
    landing = handler.landing(frame.plan)
    slot = landing.slot(connection, frame.chunk) if landing else None
    if landing is None or slot is None:
        _discard(frame.payload_size_bytes, body)
        body.arrived(frame)
        return
    is_right = False
    try:
        check_size(frame, slot, connection)
        data = _host_bytes(slot)
        crc = body.read_summed(data)
        body.arrived(frame)
        if check_sum(frame, crc, connection):
            if isinstance(slot, DeviceSpan):
                slot.write(data)
            is_right = True
    finally:
        if not is_right:
            landing.failed(connection, frame.chunk)
    if is_right:
        landing.landed(connection, frame.chunk)


def _host_bytes(slot: Bytes) -> memoryview:
    """The slot itself, or bytes to receive in and then copy there."""
    return memoryview(bytearray(slot.nbytes)) if isinstance(slot, DeviceSpan) else slot


def _discard(size_bytes: int, body: FrameBody) -> None:
    scratch = memoryview(bytearray(min(size_bytes, _DISCARD_SIZE_BYTES)))
    while size_bytes:
        piece = scratch[:size_bytes]
        body.read_into(piece)
        size_bytes -= piece.nbytes
