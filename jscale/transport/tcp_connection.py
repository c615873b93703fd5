"""One TCP connection: from the arena to the socket, and from the socket to it."""

import contextlib
import socket
from collections.abc import Callable

from jscale.core.ids import WorkerId
from jscale.core.units import KIB
from jscale.transport.base import Connection, Handler, TransportConfig
from jscale.transport.checksum import extend_crc32c
from jscale.transport.delivery import FrameBody
from jscale.transport.framed_connection import FramedConnection
from jscale.transport.framing import HEAD_SIZE_BYTES, Frame, decode_head, encode_head
from jscale.transport.sockets import receive_into, send_all

PIECE_SIZE_BYTES = 256 * KIB
"""What is received at once: it and what the kernel copies it from fit a second-level
cache of 1 MiB, from where the checksum reads it twice as fast as from memory."""


class TcpConnection(FramedConnection, FrameBody):
    """A `Connection` on a socket whose handshake is done.

    The socket is closed by the receive thread alone, when no writer is in it, so that
    nobody ever uses a descriptor that the system has given to something else.
    """

    def __init__(
        self,
        sock: socket.socket,
        peer: WorkerId,
        handler: Handler,
        config: TransportConfig,
        *,
        is_accepted: bool,
        on_ended: Callable[[Connection], None],
    ) -> None:
        super().__init__(
            peer, handler, config, is_accepted=is_accepted, on_ended=on_ended
        )
        self._socket = sock
        self._head = bytearray(HEAD_SIZE_BYTES)

    def read_into(self, view: memoryview) -> None:
        """See `FrameBody.read_into`."""
        receive_into(self._socket, view)

    def read_summed(self, view: memoryview) -> int:
        """See `FrameBody.read_summed`; piece by piece, while each is in the cache."""
        crc = 0
        for start in range(0, view.nbytes, PIECE_SIZE_BYTES):
            piece = view[start : start + PIECE_SIZE_BYTES]
            receive_into(self._socket, piece)
            crc = extend_crc32c(crc, piece)
        return crc

    def arrived(self, frame: Frame) -> None:
        """See `FrameBody.arrived`."""
        self._arrived(frame)

    def _put(self, frame: Frame, header: bytes, payload: memoryview) -> None:
        parts = [memoryview(encode_head(frame)), memoryview(header), payload]
        send_all(self._socket, parts)

    def _take(self) -> tuple[Frame, FrameBody]:
        receive_into(self._socket, memoryview(self._head))
        return decode_head(bytes(self._head)), self

    def _break(self) -> None:
        with contextlib.suppress(OSError):  # Closed already, or the peer was first.
            self._socket.shutdown(socket.SHUT_RDWR)

    def _release(self) -> None:
        self._socket.close()
