"""One port of an RDMA device as a process uses it: all that its connections share."""

import contextlib
import ctypes
import dataclasses
import mmap
import os
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyverbs.enums as verbs
from pyverbs.addr import GID
from pyverbs.cq import CQ, CompChannel
from pyverbs.device import Context
from pyverbs.mr import MR, DmaBufMR
from pyverbs.pd import PD
from pyverbs.pyverbs_error import PyverbsError
from pyverbs.srq import SRQ, SrqAttr, SrqInitAttr
from pyverbs.wr import SGE, RecvWR

from jscale.core.errors import TransportError
from jscale.transport.rdma_devices import RdmaPort

RECEIVED = 1 << 63
"""Set in the number of every receive request: that of a failed completion is all that
tells a receive from a send."""

_ACCESS = verbs.IBV_ACCESS_LOCAL_WRITE | verbs.IBV_ACCESS_REMOTE_WRITE
_POLL = 64
_READS_MAX = 16
_FD_LOCK = threading.Lock()
_FD_TRIES = 5
_FD_NAME = "anon_inode:[infinibandevent]"


class Completion(NamedTuple):
    """What became of a work request."""

    qp_num: int
    number: int
    status: int
    is_write: bool
    size_bytes: int
    immediate: int

    @property
    def is_received(self) -> bool:
        """Whether something came; else something of ours is done."""
        return self.number >= RECEIVED

    @property
    def buffer(self) -> int:
        """Which receive buffer was used up."""
        return self.number - RECEIVED


@dataclasses.dataclass(frozen=True)
class Slab:
    """Memory of our own that a device may use; a peer's requests never touch it."""

    view: memoryview
    address: int
    lkey: int


class Rail:
    """Device context, protection domain, completion queue and receive buffers.

    Receive buffers belong to a shared queue: connections promise their peers so many
    of them, and what one has read it posts again. Thread-safe.
    """

    def __init__(
        self,
        port: RdmaPort,
        *,
        index: int,
        connections: int,
        receives: int,
        sends: int,
        buffer_size_bytes: int,
    ) -> None:
        """Opens the device.

        Args:
          port: which, and by which address.
          index: its number among the rails of this process.
          connections: how many at once, at most; fewer if the device has not enough.
          receives: receive buffers that one connection promises to its peer.
          sends: work requests that one connection has posted, at most.
          buffer_size_bytes: of one receive buffer.

        Raises:
          TransportError: it cannot be opened, or not used as it must be.
        """
        self.port = port
        self.index = index
        self._buffer_size_bytes = buffer_size_bytes
        self._lock = threading.RLock()
        self.destroying = threading.Lock()
        """Held while a queue pair is destroyed. That waits, and the process with it,
        until each of its events that was taken is acknowledged."""
        self._opened: list[Any] = []
        self._regions: list[Any] = []
        self._requests: list[Any] = []
        self._views: list[memoryview] = []
        self._receives = receives
        self._num_connections = 0
        try:
            with self._named("cannot be opened"):
                self._open(connections, receives, sends)
        except TransportError:
            self.close()
            raise

    def register(self, address: int, size_bytes: int, *, is_read: bool) -> Any:
        """A memory region that peers may write to (and read from).

        Raises:
          TransportError: the system does not allow it.
        """
        access = _ACCESS | (verbs.IBV_ACCESS_REMOTE_READ if is_read else 0)
        return self._region(address, size_bytes, access)

    def register_dmabuf(self, fd: int, size_bytes: int, *, is_read: bool) -> Any:
        """As `register`, for memory that is exported as a DMA-BUF.

        Its bytes are counted from 0 on, as pyverbs gives it no other address.
        """
        access = _ACCESS | (verbs.IBV_ACCESS_REMOTE_READ if is_read else 0)
        with self._named("does not take a DMA-BUF"):
            return DmaBufMR(self.pd, size_bytes, access, fd, 0)

    def make_slab(self, size_bytes: int) -> Slab:
        """Memory of our own for what is sent and received; lives as long as the rail.

        Raises:
          TransportError: the system does not allow it.
        """
        view = memoryview(mmap.mmap(-1, size_bytes))
        address = address_of(view)
        region = self._region(address, size_bytes, verbs.IBV_ACCESS_LOCAL_WRITE)
        with self._lock:
            self._regions.append(region)
        return Slab(view, address, region.lkey)

    def admit(self) -> None:
        """Sets the receive buffers of one more connection aside.

        Raises:
          TransportError: there are none.
        """
        with self._lock:
            number = self._num_connections + 1
            if number > self.connections_max:
                raise TransportError(
                    f"{self.port.name} has {self.connections_max} RDMA connections "
                    "and room for no more: raise their number, or lower their depth"
                )
            missing = number * self._receives - len(self._requests)
            if missing > 0:
                self._add_buffers(missing)
            self._num_connections = number

    def dismiss(self) -> None:
        """A connection has ended; its buffers stay posted for the next one."""
        with self._lock:
            self._num_connections -= 1

    def buffer(self, index: int, size_bytes: int) -> memoryview:
        """What has come into a receive buffer."""
        return self._views[index][:size_bytes]

    def repost(self, index: int) -> None:
        """Gives a receive buffer back to the queue."""
        self.srq.post_recv(self._requests[index])

    def poll(self) -> list[Completion]:
        """What has completed, in order; a part of it if it is much."""
        _, completions = self.cq.poll(_POLL)
        return [
            Completion(
                wc.qp_num,
                wc.wr_id,
                wc.status,
                wc.opcode == verbs.IBV_WC_RECV_RDMA_WITH_IMM,
                wc.byte_len,
                wc.imm_data,
            )
            for wc in completions
        ]

    def rearm(self) -> None:
        """Takes the event off the channel, and asks for the next one.

        Call `poll` until it returns nothing before sleeping again.
        """
        self._channel.get_cq_event(self.cq)
        self.cq.ack_events(1)
        self.cq.req_notify()

    def take_event(self) -> int | None:
        """The kind of an asynchronous event of the device, as verbs number them.

        None: it was of a queue pair that is destroyed since.
        """
        with self.destroying:
            try:
                event = self.context.get_async_event()
            except PyverbsError:
                return None
            kind = int(event.event_type)
            event.ack()
            return kind

    def close(self) -> None:
        """Gives everything back, what was made last first; no queue pair is left."""
        context_and_domain, queues = self._opened[:2], self._opened[2:]
        for opened in reversed(context_and_domain + self._regions + queues):
            opened.close()
        for request in self._requests:
            request.close()
        for made in (self._opened, self._regions, self._requests):
            made.clear()

    def _open(self, connections: int, receives: int, sends: int) -> None:
        port = self.port
        self.context, self.events_fd = _with_fd(lambda: Context(name=port.device))
        self._opened.append(self.context)
        self.pd = PD(self.context)
        self._opened.append(self.pd)
        self._channel, self.fd = _with_fd(lambda: CompChannel(self.context))
        self._opened.append(self._channel)
        limits = self.context.query_device()
        self.connections_max = min(
            connections,
            limits.max_qp,
            limits.max_srq_wr // receives,
            limits.max_cqe // (receives + sends),
        )
        entries = self.connections_max * (receives + sends)
        self.cq = CQ(self.context, max(1, entries), None, self._channel, 0)
        self._opened.append(self.cq)
        depth = max(1, self.connections_max * receives)
        self.srq = SRQ(self.pd, SrqInitAttr(SrqAttr(max_wr=depth)))
        self._opened.append(self.srq)
        gid = str(self.context.query_gid(port.port, port.gid_index))
        self.gid = bytes.fromhex(gid.replace(":", ""))
        state = self.context.query_port(port.port)
        self.lid, self.mtu = state.lid, state.active_mtu
        self.reads = max(1, min(_READS_MAX, limits.max_qp_rd_atom))
        self.cq.req_notify()

    def _add_buffers(self, number: int) -> None:
        size_bytes = self._buffer_size_bytes
        slab = self.make_slab(number * size_bytes)
        for start in range(0, number * size_bytes, size_bytes):
            entry = SGE(slab.address + start, size_bytes, slab.lkey)
            index = len(self._requests)
            request = RecvWR(wr_id=RECEIVED | index, num_sge=1, sg=[entry])
            entry.close()  # pyverbs frees neither by itself.
            self._requests.append(request)
            self._views.append(slab.view[start : start + size_bytes])
            self.srq.post_recv(request)

    def _region(self, address: int, size_bytes: int, access: int) -> Any:
        if not address:  # pyverbs would take other memory in its place.
            raise TransportError("cannot reach memory at address 0")
        what = f"does not take {size_bytes} bytes of memory (see `ulimit -l`)"
        with self._named(what):
            return MR(self.pd, size_bytes, access, address=address)

    @contextlib.contextmanager
    def _named(self, what: str) -> Iterator[None]:
        try:
            yield
        except PyverbsError as error:
            raise TransportError(f"RDMA port {self.port.name} {what}: {error}") from (
                error
            )


def address_of(view: memoryview) -> int:
    """Where the bytes of a view start."""
    if view.readonly:
        import numpy as np

        return int(np.frombuffer(view, np.uint8).ctypes.data)
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def gid_of(address: bytes) -> Any:
    """The 16 bytes of an address as verbs take them."""
    text = address.hex()
    return GID(":".join(text[start : start + 4] for start in range(0, 32, 4)))


def _with_fd(make: Any) -> tuple[Any, int]:
    """What `make` returns, and the descriptor of events that came with it.

    pyverbs shows neither that of a completion channel nor that of a device's events,
    and its calls that wait for one hold up the whole process meanwhile. So we wait for
    the descriptor, and call only when there is something; should that have gone, the
    call fails.
    """
    for _ in range(_FD_TRIES):
        with _FD_LOCK:
            before = _event_fds()
            made = make()
            new = _event_fds() - before
        if len(new) == 1:
            fd = new.pop()
            os.set_blocking(fd, False)
            return made, fd
        made.close()
    raise TransportError(
        f"{len(new)} descriptors of RDMA events appear where one should: something "
        "else in this process opens RDMA devices all the time; open this one first"
    )


def _event_fds() -> set[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == _FD_NAME:
                found.add(int(name))
    return found
