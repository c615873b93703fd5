"""What all RDMA connections of a process share: rails, memory, queue pairs, poller."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence

from jscale.core.errors import TransportError
from jscale.core.units import KIB
from jscale.transport.base import TransportConfig
from jscale.transport.rdma_devices import RdmaPort
from jscale.transport.rdma_endpoint import Endpoint, Note, Ready, Refused, Region
from jscale.transport.rdma_flow import FlowLimits
from jscale.transport.rdma_link import RdmaLink
from jscale.transport.rdma_memory import RegisteredMemory
from jscale.transport.rdma_poller import Poller
from jscale.transport.rdma_queue_pairs import QueuePair, QueuePairPool
from jscale.transport.rdma_rail import Rail
from jscale.transport.rdma_send_slots import SendSlots, SlabPool
from jscale.transport.rdma_side_channel import SideChannel

STREAM_BUFFER_SIZE_BYTES = 32 * KIB
STREAM_DEPTH = 16
"""With buffers of 32 KiB half a MiB of messages on their way: 50 GB/s for 10 µs."""

_WRITE_BUFFER_SIZE_BYTES = 16
"""Of rails on which only writes come: a receive request must have some bytes."""


class Equipment:
    """Opens the ports; makes links on them and takes them back. Thread-safe."""

    def __init__(self, ports: Sequence[RdmaPort], config: TransportConfig) -> None:
        """Opens the devices.

        Raises:
          TransportError: one of them cannot be used.
        """
        options = config.rdma
        self._config = config
        self.limits = FlowLimits(stream=STREAM_DEPTH, offers=options.depth)
        self._rails: list[Rail] = []
        try:
            for port in ports:
                self._rails.append(self._open_rail(port))
        except TransportError:
            for rail in self._rails:
                rail.close()
            raise
        self.memory = RegisteredMemory(self._rails, is_read=options.pulls)
        self._pool = QueuePairPool(
            self._rails, send_depth=self.limits.send_depth, is_read=options.pulls
        )
        self._poller = Poller(self._rails)
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._links: set[RdmaLink] = set()
        self._num_users = 0
        self._is_closing = False
        slab_size_bytes = SendSlots.size_bytes(self.limits, STREAM_BUFFER_SIZE_BYTES)
        self._slabs = SlabPool(self._rails[0], slab_size_bytes)

    @property
    def names(self) -> str:
        """Which ports, for the log."""
        return ",".join(rail.port.name for rail in self._rails)

    def call(self, sock: socket.socket) -> RdmaLink:
        """A link to a listener that has proved who it is.

        Raises:
          TransportError: it has none for us, or cannot be reached.
        """
        channel = SideChannel(sock)
        deadline_s = time.monotonic() + self._config.timeout_s
        with self._lent(channel) as queue_pairs:
            channel.tell(_endpoint(queue_pairs))
            self._connect(queue_pairs, _endpoint_in(channel.next(deadline_s)))
            link = self._link(channel, queue_pairs)
        channel.tell(Ready())
        return link

    def answer(self, sock: socket.socket) -> RdmaLink:
        """A link to a caller that has proved who it is.

        Raises:
          TransportError: there is none for it, or it cannot be reached.
        """
        channel = SideChannel(sock)
        deadline_s = time.monotonic() + self._config.timeout_s
        endpoint = _endpoint_in(channel.next(deadline_s))
        with self._lent(channel) as queue_pairs:
            self._connect(queue_pairs, endpoint)
            link = self._link(channel, queue_pairs)
        channel.tell(_endpoint(queue_pairs))
        try:
            note = channel.next(deadline_s)
            if not isinstance(note, Ready):
                raise TransportError(f"{type(note).__name__} where Ready was expected")
        except TransportError:
            self.give_up(link)
            raise
        return link

    def begin(self, link: RdmaLink) -> None:
        """Tells the link of notes, too, and its peer of our memory."""
        with self._lock:
            self._links.add(link)
            regions = self.memory.regions
        for region in regions:
            link.channel.tell(region)
        self._poller.listen(link)

    def tell(self, region: Region) -> None:
        """Tells all peers of memory that was registered."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.channel.tell(region)

    def give_up(self, link: RdmaLink) -> None:
        """Ends a link that nobody has used."""
        link.stop("")
        self.take_back(link)

    def take_back(self, link: RdmaLink) -> None:
        """Gives back what a link used, that is stopped."""
        with self._lock:
            self._links.discard(link)
        self._poller.detach(link)
        link.close()
        with self._lock:
            self._slabs.give(link.slots.slab)
        for queue_pair in link.queue_pairs:
            queue_pair.rail.dismiss()
        self._leave()

    def close(self) -> None:
        """Gives everything back, what was made last first, as soon as no link is left.

        That is at once, unless a connection ends on the very thread that calls.
        """
        with self._lock:
            self._is_closing = True
            self._num_users += 1
        self._leave()

    @contextlib.contextmanager
    def _lent(self, channel: SideChannel) -> Iterator[list[QueuePair]]:
        """Queue pairs for a link; if there will be none, the peer is told why."""
        with self._lock:
            if self._is_closing:
                raise TransportError("this transport is closed")
            self._num_users += 1
        queue_pairs: list[QueuePair] = []
        try:
            queue_pairs += self._pool.take()
            yield queue_pairs
        except TransportError as error:
            _close(queue_pairs)
            self._leave()
            channel.tell(Refused(str(error)))
            raise

    def _leave(self) -> None:
        with self._lock:
            self._num_users -= 1
            is_last = self._is_closing and not self._num_users
        if is_last:
            self._poller.close()
            self._pool.close()
            self.memory.close()
            for rail in self._rails:
                rail.close()

    def _open_rail(self, port: RdmaPort) -> Rail:
        index, limits = len(self._rails), self.limits
        is_first = index == 0
        return Rail(
            port,
            index=index,
            connections=self._config.rdma.connections,
            receives=limits.stream_rail_buffers if is_first else limits.offers,
            sends=limits.send_depth,
            buffer_size_bytes=(
                STREAM_BUFFER_SIZE_BYTES if is_first else _WRITE_BUFFER_SIZE_BYTES
            ),
        )

    def _connect(self, queue_pairs: list[QueuePair], endpoint: Endpoint) -> None:
        """Connects those of them that both sides have, and drops the others."""
        number = min(len(queue_pairs), len(endpoint.rails))
        _close(queue_pairs[number:])
        del queue_pairs[number:]
        for queue_pair, rail in zip(queue_pairs, endpoint.rails, strict=False):
            queue_pair.connect(rail, self._config.rdma.retry_s)

    def _link(self, channel: SideChannel, queue_pairs: list[QueuePair]) -> RdmaLink:
        """A link that hears of what its queue pairs do, not yet of notes."""
        admitted: list[Rail] = []
        try:
            for queue_pair in queue_pairs:
                queue_pair.rail.admit()
                admitted.append(queue_pair.rail)
            with self._lock:
                slab = self._slabs.take()
        except TransportError:
            for rail in admitted:
                rail.dismiss()
            raise
        link = RdmaLink(
            channel,
            queue_pairs,
            self.memory,
            SendSlots(slab, self.limits, STREAM_BUFFER_SIZE_BYTES),
            self.limits,
            timeout_s=self._config.timeout_s,
        )
        self._poller.attach(link)
        return link


def _endpoint(queue_pairs: Sequence[QueuePair]) -> Endpoint:
    return Endpoint(tuple(queue_pair.endpoint for queue_pair in queue_pairs))


def _endpoint_in(note: Note) -> Endpoint:
    match note:
        case Endpoint():
            return note
        case Refused(reason):
            raise TransportError(f"it has no RDMA connection for us: {reason}")
        case _:
            raise TransportError(f"{type(note).__name__} where Endpoint was expected")


def _close(queue_pairs: Sequence[QueuePair]) -> None:
    for queue_pair in queue_pairs:
        queue_pair.close()
