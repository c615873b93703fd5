"""One side of an in-process connection."""

from collections.abc import Callable

from jscale.core.ids import WorkerId
from jscale.transport.base import Connection, Handler, TransportConfig
from jscale.transport.delivery import FrameBody
from jscale.transport.framed_connection import FramedConnection
from jscale.transport.framing import Frame
from jscale.transport.mem_pipe import Parcel, Pipe


class MemConnection(FramedConnection):
    """A `Connection` on two pipes; unlike others it copies what it sends."""

    def __init__(
        self,
        incoming: Pipe,
        outgoing: Pipe,
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
        self._incoming = incoming
        self._outgoing = outgoing

    def _put(self, frame: Frame, header: bytes, payload: memoryview) -> None:
        self._outgoing.put(Parcel(frame, b"".join((header, payload))))

    def _take(self) -> tuple[Frame, FrameBody]:
        parcel = self._incoming.get()
        return parcel.frame, _ParcelBody(parcel, self._arrived)

    def _break(self) -> None:
        self._incoming.close()
        self._outgoing.close()


class _ParcelBody(FrameBody):
    """Reads one parcel; owned by the receive thread."""

    def __init__(self, parcel: Parcel, arrived: Callable[[Frame], None]) -> None:
        self._left = memoryview(parcel.body)
        self._arrived = arrived

    def read_into(self, view: memoryview) -> None:
        """See `FrameBody.read_into`."""
        view[:] = self._left[: view.nbytes]
        self._left = self._left[view.nbytes :]

    def arrived(self, frame: Frame) -> None:
        """See `FrameBody.arrived`."""
        self._arrived(frame)
