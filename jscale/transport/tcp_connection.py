"""One TCP connection: from the arena to the socket, and from the socket to it."""

import contextlib
import socket
from collections.abc import Callable

from jscale.core.ids import WorkerId
from jscale.transport.base import Connection, Handler, TransportConfig
from jscale.transport.delivery import FrameBody
from jscale.transport.framed_connection import FramedConnection
from jscale.transport.framing import HEAD_SIZE_BYTES, Frame, decode_head, encode_head
from jscale.transport.sockets import receive_into, send_all


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
