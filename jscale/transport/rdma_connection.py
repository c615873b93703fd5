"""One side of an RDMA connection: frames in a stream, chunks straight into memory."""

import collections
import contextlib
import dataclasses
from collections.abc import Callable

from jscale.core.errors import PeerLostError, TransportError
from jscale.core.ids import WorkerId
from jscale.core.spans import Bytes, DeviceSpan, in_host_memory
from jscale.transport.base import Connection, Handler, Landing, TransportConfig
from jscale.transport.checksum import crc32c
from jscale.transport.delivery import FrameBody, check_chunk, check_size
from jscale.transport.framed_connection import CLOSED_HERE, FramedConnection
from jscale.transport.framing import (
    HEAD_SIZE_BYTES,
    Frame,
    FrameKind,
    decode_head,
    encode_head,
)
from jscale.transport.rdma_landing_pad import LandingPad
from jscale.transport.rdma_link import RdmaLink
from jscale.transport.rdma_memory import RegisteredMemory
from jscale.transport.rdma_offers import OfferedChunk
from jscale.transport.rdma_wire import NUMBERS, Offer, decode_offer, encode_offer


@dataclasses.dataclass(frozen=True)
class _Arriving:
    """A chunk that the peer may write now, and where to.

    `data` is where it is written: the slot, or the landing pad.
    """

    number: int
    frame: Frame
    landing: Landing
    slot: Bytes
    data: Bytes


class RdmaConnection(FramedConnection, FrameBody):
    """A `Connection` on a link whose queue pairs are connected.

    Chunks that lie in registered memory are offered, and written or read once there is
    a place for them; messages, and chunks from elsewhere, are bytes of the stream.
    """

    def __init__(
        self,
        link: RdmaLink,
        memory: RegisteredMemory,
        peer: WorkerId,
        handler: Handler,
        config: TransportConfig,
        *,
        is_accepted: bool,
        on_stopped: Callable[[RdmaLink], None],
        on_ended: Callable[[Connection], None],
    ) -> None:
        super().__init__(
            peer, handler, config, is_accepted=is_accepted, on_ended=on_ended
        )
        self._link = link
        self._memory = memory
        self._on_stopped = on_stopped
        # Owned by the receive thread:
        self._pad = LandingPad(memory, link.channel)
        self._arriving: collections.deque[_Arriving] = collections.deque()
        self._next_offer = 0
        self._buffer: int | None = None
        self._bytes = memoryview(b"")

    @property
    def link(self) -> RdmaLink:
        """What it runs on."""
        return self._link

    def read_into(self, view: memoryview) -> None:
        """See `FrameBody.read_into`."""
        while view.nbytes:
            if self._buffer is None:
                self._buffer, self._bytes = self._link.next_bytes()
            piece = self._bytes[: view.nbytes]
            view[: piece.nbytes] = piece
            view = view[piece.nbytes :]
            self._bytes = self._bytes[piece.nbytes :]
            if not self._bytes.nbytes:
                buffer, self._buffer = self._buffer, None
                self._link.taken(buffer)

    def arrived(self, frame: Frame) -> None:
        """See `FrameBody.arrived`."""
        self._arrived(frame)

    def _put(self, frame: Frame, header: bytes, payload: memoryview) -> None:
        parts = [memoryview(encode_head(frame)), memoryview(header), payload]
        self._link.send(parts)

    def _put_chunk(self, frame: Frame, payload: memoryview, source: Bytes) -> None:
        place = self._memory.find(source)
        if place is None:
            self._put(frame, b"", payload)
            return
        is_pulled = self._config.rdma.pulls
        offer = Offer(source.nbytes, frame.crc32c, place if is_pulled else None)
        header = encode_offer(offer)
        head = Frame(
            kind=FrameKind.OFFER,
            plan=frame.plan,
            chunk=frame.chunk,
            header_size_bytes=len(header),
            crc32c=crc32c(header),
        )
        self._link.offer(OfferedChunk(source, place, is_pulled))
        self._put(head, header, memoryview(b""))

    def _take(self) -> tuple[Frame, FrameBody]:
        while True:
            if not self._has_bytes():
                self._land()
                continue
            head = bytearray(HEAD_SIZE_BYTES)
            self.read_into(memoryview(head))
            frame = decode_head(bytes(head))
            if frame.kind is FrameKind.OFFER:
                self._consider(frame)
                continue
            while self._arriving:  # They were sent before.
                self._land()
            self._link.speak()
            return frame, self

    def _has_bytes(self) -> bool:
        """Waits; whether there are bytes of the stream, else a chunk is here.

        The former first: the offers in them can be answered before a chunk is checked.
        """
        number = self._arriving[0].number if self._arriving else None
        return self._buffer is not None or self._link.wait(number)

    def _consider(self, frame: Frame) -> None:
        """Answers an offer."""
        header = bytearray(frame.header_size_bytes)
        self.read_into(memoryview(header))
        if crc32c(header) != frame.crc32c:
            raise TransportError(f"a damaged offer from {self.peer}; closing")
        offer = decode_offer(bytes(header))
        number = self._next_offer
        self._next_offer = (number + 1) % NUMBERS
        while len(self._arriving) >= self._link.limits.offers:
            self._land()
        landing = self._handler.landing(frame.plan)
        slot = landing.slot(self, frame.chunk) if landing else None
        if landing is None or slot is None:
            self._link.refuse(number)
            return
        chunk = Frame(
            kind=FrameKind.CHUNK,
            plan=frame.plan,
            chunk=frame.chunk,
            payload_size_bytes=offer.size_bytes,
            crc32c=offer.crc32c,
        )
        is_taken = False
        try:
            check_size(chunk, slot, self)
            self._accept(number, chunk, landing, slot, offer)
            is_taken = True
        finally:
            if not is_taken:
                landing.failed(self, frame.chunk)

    def _accept(
        self, number: int, chunk: Frame, landing: Landing, slot: Bytes, offer: Offer
    ) -> None:
        place, data = self._memory.find(slot), slot
        if place is None:
            while self._arriving:  # One of them may be on the pad.
                self._land()
            place, data = self._pad.place_for(slot.nbytes)
        if offer.place is None:
            self._link.grant(number, place)
        else:
            self._link.pull(number, place, slot.nbytes, offer.place)
        self._arriving.append(_Arriving(number, chunk, landing, slot, data))

    def _land(self) -> None:
        """Waits for the chunk that is next, and tells its landing."""
        arriving = self._arriving[0]
        self._link.speak()
        self._link.wait_for_chunk(arriving.number)
        self._arriving.popleft()
        self._link.forget(arriving.number)
        frame, landing, slot = arriving.frame, arriving.landing, arriving.slot
        is_right = False
        try:
            self._arrived(frame)
            data = in_host_memory(arriving.data)
            if check_chunk(frame, data, self):
                if arriving.data is not slot:
                    _copy(data, slot)
                is_right = True
        finally:
            if not is_right:
                landing.failed(self, frame.chunk)
        if is_right:
            landing.landed(self, frame.chunk)

    def _break(self) -> None:
        self._link.interrupt(self._lost_reason or "it ended")

    def _release(self) -> None:
        is_closed_here = self._lost_reason == CLOSED_HERE
        try:
            if is_closed_here:
                self._link.flush()
            if self._buffer is not None:
                with contextlib.suppress(PeerLostError):
                    self._link.taken(self._buffer)
            self._link.stop("" if is_closed_here else self._lost_reason or "")
        finally:  # The device goes with its last connection: the pad is first.
            self._pad.close()
            self._on_stopped(self._link)

    def _abandon(self) -> None:
        while self._arriving:
            arriving = self._arriving.popleft()
            arriving.landing.failed(self, arriving.frame.chunk)


def _copy(data: memoryview, slot: Bytes) -> None:
    if isinstance(slot, DeviceSpan):
        slot.write(data)
    else:
        slot[:] = data
