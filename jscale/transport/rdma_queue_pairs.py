"""Queue pairs: made ahead of use, connected in use, never used twice."""

import collections
import os
import threading
from collections.abc import Sequence
from typing import Any

import pyverbs.enums as verbs
from absl import logging
from pyverbs.addr import AHAttr, GlobalRoute
from pyverbs.pyverbs_error import PyverbsError
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, SendWR

from jscale.core.errors import PeerLostError, TransportError
from jscale.transport.rdma_endpoint import PSN_MAX, RailEndpoint
from jscale.transport.rdma_rail import Rail, gid_of
from jscale.transport.rdma_status import RETRIES, RNR_RETRIES, RNR_TIMER, ack_timeout

READY_SETS = 4
"""Connections for which queue pairs lie ready; making one takes up to a millisecond,
and a scale-out connects a worker to some peers at once."""

_HOP_LIMIT = 64


class QueuePair:
    """A reliable connection's end on one rail. Its owner guards it."""

    def __init__(self, rail: Rail, *, send_depth: int, is_read: bool) -> None:
        """A queue pair that can be connected.

        Args:
          rail: on which.
          send_depth: work requests posted at once, at most.
          is_read: peers may read from memory, too.

        Raises:
          TransportError: the device has no more.
        """
        self.rail = rail
        self.psn = int.from_bytes(os.urandom(3), "little") & PSN_MAX
        capacity = QPCap(
            max_send_wr=send_depth, max_recv_wr=1, max_send_sge=1, max_recv_sge=1
        )
        access = verbs.IBV_ACCESS_REMOTE_WRITE
        if is_read:
            access |= verbs.IBV_ACCESS_REMOTE_READ
        attributes = QPAttr(port_num=rail.port.port)
        attributes.qp_access_flags = access
        self._access = access
        try:
            self._qp = QP(
                rail.pd,
                QPInitAttr(
                    qp_type=verbs.IBV_QPT_RC,
                    scq=rail.cq,
                    rcq=rail.cq,
                    srq=rail.srq,
                    cap=capacity,
                    sq_sig_all=0,
                ),
            )
            self._qp.to_init(attributes)
        except PyverbsError as error:
            raise TransportError(
                f"{rail.port.name} has no queue pair for us: {error}"
            ) from error
        self.number = int(self._qp.qp_num)

    @property
    def endpoint(self) -> RailEndpoint:
        """What the peer must know."""
        rail = self.rail
        return RailEndpoint(
            rail.gid, rail.lid, self.number, self.psn, rail.mtu, rail.reads
        )

    def connect(self, peer: RailEndpoint, retry_s: float) -> None:
        """Makes it ready to send to and receive from the peer's.

        Raises:
          TransportError: there is no way to that address.
        """
        port = self.rail.port
        attributes = QPAttr(port_num=port.port)
        attributes.qp_access_flags = self._access
        attributes.dest_qp_num = peer.qp_num
        attributes.rq_psn, attributes.sq_psn = peer.psn, self.psn
        attributes.path_mtu = min(self.rail.mtu, peer.mtu)
        attributes.max_rd_atomic = min(self.rail.reads, peer.reads)
        attributes.max_dest_rd_atomic = self.rail.reads
        attributes.min_rnr_timer = RNR_TIMER
        attributes.timeout = ack_timeout(retry_s)
        attributes.retry_cnt, attributes.rnr_retry = RETRIES, RNR_RETRIES
        route = GlobalRoute(
            dgid=gid_of(peer.gid), sgid_index=port.gid_index, hop_limit=_HOP_LIMIT
        )
        attributes.ah_attr = AHAttr(
            gr=route, is_global=1, port_num=port.port, dlid=peer.lid
        )
        try:
            self._qp.to_rts(attributes)
        except PyverbsError as error:
            raise TransportError(
                f"{port.name} finds no way to {peer.gid.hex(':', 2)}: {error}; are "
                "both in one network, with GIDs of one kind (jscale-doctor)?"
            ) from error

    def send(
        self,
        local: tuple[int, int, int],
        immediate: int,
        *,
        number: int,
        is_signalled: bool,
    ) -> None:
        """Posts a SEND of the bytes at `local`: address, size, key.

        Raises:
          PeerLostError: the queue pair takes nothing any more; so for the others.
        """
        self._post(
            verbs.IBV_WR_SEND_WITH_IMM, local, None, immediate, number, is_signalled
        )

    def write(
        self,
        local: tuple[int, int, int],
        remote: tuple[int, int],
        immediate: int,
        *,
        number: int,
        is_signalled: bool,
    ) -> None:
        """Posts a write to `remote`, address and key, that the peer hears of."""
        opcode = verbs.IBV_WR_RDMA_WRITE_WITH_IMM
        self._post(opcode, local, remote, immediate, number, is_signalled)

    def read(
        self,
        local: tuple[int, int, int],
        remote: tuple[int, int],
        *,
        number: int,
        is_signalled: bool,
    ) -> None:
        """Posts a read of `remote`, address and key, into the bytes at `local`."""
        self._post(verbs.IBV_WR_RDMA_READ, local, remote, 0, number, is_signalled)

    def write_nothing(self, *, number: int) -> None:
        """Posts a write of no bytes, which opens no memory and nobody hears of."""
        self._post(verbs.IBV_WR_RDMA_WRITE, (0, 0, 0), (0, 0), 0, number, True)

    def stop(self) -> None:
        """Neither sends nor receives from now on; what is posted is flushed."""
        attributes = QPAttr(qp_state=verbs.IBV_QPS_ERR)
        try:
            self._qp.modify(attributes, verbs.IBV_QP_STATE)
        except PyverbsError as error:
            logging.warning("%s: cannot stop: %s", self.rail.port.name, error)

    def is_failed(self) -> bool:
        """Whether the device has stopped it, or does not even say."""
        try:
            attributes, _ = self._qp.query(verbs.IBV_QP_STATE)
        except PyverbsError:
            return True
        return bool(attributes.qp_state == verbs.IBV_QPS_ERR)

    def close(self) -> None:
        """Gives it back to the device."""
        try:
            with self.rail.destroying:
                self._qp.close()
        except PyverbsError as error:
            logging.warning("%s: cannot close: %s", self.rail.port.name, error)

    def _post(
        self,
        opcode: Any,
        local: tuple[int, int, int],
        remote: tuple[int, int] | None,
        immediate: int,
        number: int,
        is_signalled: bool,
    ) -> None:
        entry = SGE(*local)
        request = SendWR(
            wr_id=number,
            opcode=opcode,
            num_sge=1,
            imm_data=immediate,
            sg=[entry],
            send_flags=verbs.IBV_SEND_SIGNALED if is_signalled else 0,
        )
        try:
            if remote is not None:
                address, key = remote
                request.set_wr_rdma(key, address)
            self._qp.post_send(request)
        except PyverbsError as error:
            raise PeerLostError(f"{self.rail.port.name}: {error}") from error
        finally:
            request.close()  # pyverbs frees neither by itself.
            entry.close()


class QueuePairPool:
    """Sets of queue pairs, one on each rail, made by a thread. Thread-safe."""

    def __init__(
        self, rails: Sequence[Rail], *, send_depth: int, is_read: bool
    ) -> None:
        self._rails = rails
        self._send_depth = send_depth
        self._is_read = is_read
        self._changed = threading.Condition()
        self._ready: collections.deque[list[QueuePair]] = collections.deque()
        self._is_closing = False
        self._thread = threading.Thread(
            target=self._refill, name="rdma-pool", daemon=True
        )
        self._thread.start()

    def take(self) -> list[QueuePair]:
        """One set, for the caller to close.

        Raises:
          TransportError: a device has no more.
        """
        with self._changed:
            ready = self._ready.popleft() if self._ready else None
            self._changed.notify_all()
        return ready or self._make()

    def close(self) -> None:
        """Closes those that nobody took."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        for queue_pairs in self._ready:
            for queue_pair in queue_pairs:
                queue_pair.close()
        self._ready.clear()

    def _refill(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_closing or len(self._ready) < READY_SETS
                )
                if self._is_closing:
                    return
            try:
                made = self._make()
            except TransportError as error:
                logging.warning("no queue pairs ahead of use: %s", error)
                return
            with self._changed:
                self._ready.append(made)

    def _make(self) -> list[QueuePair]:
        made: list[QueuePair] = []
        try:
            for rail in self._rails:
                made.append(
                    QueuePair(rail, send_depth=self._send_depth, is_read=self._is_read)
                )
        except TransportError:
            for queue_pair in made:
                queue_pair.close()
            raise
        return made
