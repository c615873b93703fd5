"""What a transport promises: messages and chunks between two processes, in order.

Each scheme (`mem://`, `tcp://`, …) is one file that implements these classes; one
suite of tests holds them all to the same words. A connection keeps the order of what
is sent on it, checks what it receives, and says `lost` exactly once when the other side
is gone.
"""

import abc
import dataclasses
import types
from collections.abc import Callable
from typing import Self

from jscale.core.errors import PeerLostError, TransportError
from jscale.core.ids import WorkerId
from jscale.core.spans import Bytes, DeviceSpan
from jscale.transport.checksum import Buffer, Checksum, crc32c
from jscale.transport.pacing import LinkPacer
from jscale.transport.rdma_options import RDMA_DEFAULTS, RdmaOptions

TIMEOUT_S = 5.0
"""A peer that takes nothing for this long is lost; a cut cable is noticed by it."""


@dataclasses.dataclass(frozen=True)
class Hello:
    """Who this side is, and the secret that all processes of a cluster share."""

    worker: WorkerId
    token: bytes = b""


@dataclasses.dataclass(frozen=True)
class TransportConfig:
    """What all connections of a transport share.

    Attributes:
      hello: who we are; peers with another token are refused.
      link: emulates a link rate, over all that shares it; None: as fast as it goes.
      timeout_s: bound on making a connection and on a peer that takes nothing.
      checksum: what senders put beside their bytes; tests make it lie.
      rdma: which devices `rdma://` uses, and how.
    """

    hello: Hello
    link: LinkPacer | None = None
    timeout_s: float = TIMEOUT_S
    checksum: Checksum = crc32c
    rdma: RdmaOptions = RDMA_DEFAULTS


class Landing(abc.ABC):
    """Where the chunks of one plan are written. Called on receive threads."""

    @abc.abstractmethod
    def slot(self, connection: "Connection", chunk: int) -> Bytes | None:
        """Writable bytes at the chunk's final address, exactly its size.

        A transport that cannot reach them on a device receives elsewhere and copies.
        They are the connection's until it calls `landed` or `failed` for the chunk,
        which it does even when it is closed meanwhile. None: the chunk is not needed
        (it is held, or is arriving from elsewhere), so its bytes are dropped.
        """

    @abc.abstractmethod
    def landed(self, connection: "Connection", chunk: int) -> None:
        """The slot holds the chunk and its checksum was right."""

    @abc.abstractmethod
    def failed(self, connection: "Connection", chunk: int) -> None:
        """The slot holds rubbish: a wrong checksum, or the sender was lost.

        The connection asks nobody: whom to ask again is the plan's affair.
        """


class Handler(abc.ABC):
    """What a process does with what arrives.

    Every call is made on the receive thread of its connection, which reads nothing
    more until the call returns: hand long work and all sending to another thread, as
    two receive threads that send to each other may wait for each other.
    """

    @abc.abstractmethod
    def opened(self, connection: "Connection") -> None:
        """A peer has connected to our listener; first call for that connection."""

    @abc.abstractmethod
    def landing(self, plan: int) -> Landing | None:
        """Where chunks of the plan go; None if it is not known (they are dropped)."""

    @abc.abstractmethod
    def message(
        self, connection: "Connection", header: bytes, payload: memoryview
    ) -> None:
        """A message arrived; the handler owns the payload from now on."""

    @abc.abstractmethod
    def announced(self, connection: "Connection", plan: int, held: bytes) -> None:
        """The peer is ready for the plan and holds the chunks of the bitmap `held`."""

    @abc.abstractmethod
    def asked(self, connection: "Connection", plan: int, chunk: int) -> None:
        """The peer wants the chunk (again): it came damaged, or never."""

    @abc.abstractmethod
    def lost(self, connection: "Connection", error: PeerLostError) -> None:
        """The peer is gone; the last call for that connection.

        Not called when this side closed the connection.
        """


class Connection(abc.ABC):
    """A two-way, ordered, checked path to one peer. Every method is thread-safe."""

    @property
    @abc.abstractmethod
    def peer(self) -> WorkerId:
        """Who the other side proved to be."""

    @abc.abstractmethod
    def send_message(self, header: bytes, payload: Buffer = b"") -> None:
        """Hands a message over; returns when `payload` may be changed again.

        Raises:
          PeerLostError: the other side is gone, or took nothing for the timeout.
          TransportError: header or payload is larger than a frame may be.
        """

    @abc.abstractmethod
    def write_chunk(self, plan: int, chunk: int, view: Bytes) -> None:
        """Hands a chunk over, at the pace of the link; it is not copied on the way.

        May return before the bytes have left, and says nothing about arrival: the view
        must stay as it is until the connection is closed. A chunk that is held never
        changes; if it does all the same, the checksum tells.

        Raises:
          PeerLostError: the other side is gone, or took nothing for the timeout.
        """

    @abc.abstractmethod
    def announce(self, plan: int, held: bytes) -> None:
        """Says that we are ready for the plan and hold the chunks of the bitmap.

        Raises:
          PeerLostError: the other side is gone, or took nothing for the timeout.
        """

    @abc.abstractmethod
    def ask(self, plan: int, chunk: int) -> None:
        """Asks the peer to send a chunk (again).

        Raises:
          PeerLostError: the other side is gone, or took nothing for the timeout.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the connection; a second call does nothing.

        Senders that wait get PeerLostError. The other side sees `lost`. Returns when
        the handler will not be called any more; on a receive thread it returns at once,
        as two that close each other's connections would wait for ever.
        """


class Listener(abc.ABC):
    """An address at which peers connect."""

    @property
    @abc.abstractmethod
    def address(self) -> str:
        """What `connect` takes, with the port that was really bound."""

    @abc.abstractmethod
    def close(self) -> None:
        """Takes no more peers; connections that were opened stay open."""


class Transport(abc.ABC):
    """Makes listeners and connections of one scheme, and closes all that it made."""

    @abc.abstractmethod
    def register(self, memory: memoryview) -> None:
        """Announces memory that slots and chunks will lie in, before their first use.

        Costs nothing but where a device must learn of it (`rdma://`), which pins it:
        its pages must stay where they are until the transport is closed.

        Raises:
          TransportError: the device does not take it.
        """

    def register_device(self, region: DeviceSpan, dmabuf: Callable[[], int]) -> str:
        """As `register`, for memory of an accelerator; how it will be reached.

        Args:
          region: the memory.
          dmabuf: exports it as a DMA-BUF; a descriptor, which the caller closes.

        Returns:
          "dmabuf" or "peermem".

        Raises:
          TransportError: it cannot be reached; says why.
        """
        del region, dmabuf
        raise TransportError("this transport reaches host memory only")

    @abc.abstractmethod
    def listen(self, address: str, handler: Handler) -> Listener:
        """Takes peers at `scheme://…`; port 0 lets the system choose.

        Raises:
          TransportError: the address is malformed or cannot be listened on.
        """

    @abc.abstractmethod
    def connect(self, address: str, handler: Handler) -> Connection:
        """A connection to the process that listens there.

        Raises:
          TransportError: nothing listens there, or it is not of our cluster.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Closes every listener and connection; no thread or socket remains."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self.close()
