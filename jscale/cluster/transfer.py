"""The multicasts that a worker is part of, and how they report."""

import threading
import time
from collections.abc import Callable

from absl import logging

from jscale.cluster import worker_events as events
from jscale.cluster.arrangement import plan_of
from jscale.cluster.messages import Bundle, JoinMulticast, Member
from jscale.cluster.peers import Peers
from jscale.core.errors import TransportError
from jscale.core.ids import PlanId, WorkerId
from jscale.core.units import NS_PER_MS, NS_PER_S
from jscale.plan.multicast_plan import MulticastPlan
from jscale.store.block_store import BlockStore
from jscale.transport.multicast import (
    MulticastMember,
    MulticastObserver,
    MulticastOutcome,
)

REPORT_EVERY_NS = 200 * NS_PER_MS
"""How often progress is told: often enough to watch, too seldom to matter."""


class Transfers:
    """Starts, changes and stops our part in multicasts. Owned by the event loop.

    A worker is in one plan at a time. Another one for the same chunks is gone on by in
    its place: what is on its way lands.
    """

    def __init__(
        self,
        worker: WorkerId,
        peers: Peers,
        post: Callable[[events.WorkerEvent], None],
    ) -> None:
        self._worker = worker
        self._peers = peers
        self._post = post
        self._member: MulticastMember | None = None
        self._bundle: Bundle | None = None
        self._connecting: list[threading.Thread] = []

    def start(self, command: JoinMulticast, store: BlockStore) -> None:
        """Takes part in a plan, and in no other any more."""
        if self._member is not None and command.bundle == self._bundle:
            plan = _plan(command, store)
            self._peers.plans.follow(self._member, command.plan, plan)
        else:
            self.stop_all()
            size_bytes = command.bundle.size_bytes if command.bundle else 0
            store.reserve_executables(size_bytes)
            plan = _plan(command, store)
            observer = _Observer(self._post, store)
            self._member = MulticastMember(
                command.plan, plan, self._worker, store, observer
            )
            self._bundle = command.bundle
            self._peers.plans.add(self._member)
            self._member.start()
        # Of two members the earlier connects, so that there is one connection.
        later = command.members[plan.index_of(self._worker) + 1 :]
        partners = [each for each in later if each.worker in self._member.peers]
        thread = threading.Thread(
            target=self._connect,
            args=(self._member, partners),
            name="connect",
            daemon=True,
        )
        self._connecting = [each for each in self._connecting if each.is_alive()]
        self._connecting.append(thread)
        thread.start()

    def stop(self, plan: PlanId) -> None:
        """Ends our part in the plan, if it is ours still; what has arrived stays."""
        if self._member is not None and self._member.plan_id == plan:
            self.stop_all()

    def stop_all(self) -> None:
        """Ends our part in any plan: nobody writes into the store any more."""
        if self._member is not None:
            self._peers.plans.remove(self._member.plan_id)
            self._member.close()
            self._member = None

    def close(self) -> None:
        """Ends everything."""
        self.stop_all()
        for thread in self._connecting:
            thread.join()

    def _connect(self, member: MulticastMember, partners: list[Member]) -> None:
        for partner in partners:
            try:
                self._peers.connection(partner.worker, partner.address)
            except TransportError as error:
                logging.warning("peer=%s: %s", partner.worker, error)
                member.unreachable(partner.worker)


def _plan(command: JoinMulticast, store: BlockStore) -> MulticastPlan:
    """What the command means for the chunks of the store."""
    num_leading = len(store.chunks.chunks_of(events.EXECUTABLES_REGION))
    return plan_of(command, store.chunks.num_chunks, num_leading=num_leading)


class _Observer(MulticastObserver):
    """Turns what a member tells into events. Called on several threads."""

    def __init__(
        self, post: Callable[[events.WorkerEvent], None], store: BlockStore
    ) -> None:
        self._post = post
        self._store = store
        self._lock = threading.Lock()
        chunks = store.chunks
        held = [c for c in range(chunks.num_chunks) if store.holds_chunk(c)]
        self._received_bytes = sum(chunks.chunk(chunk).size_bytes for chunk in held)
        self._told_bytes = self._received_bytes
        self._told_ns = time.monotonic_ns()

    def chunk_landed(self, plan: PlanId, chunk: int, region: int | None) -> None:
        """Tells complete regions at once, progress now and then."""
        if region is not None:
            self._post(events.RegionFilled(region))
        now_ns = time.monotonic_ns()
        with self._lock:
            self._received_bytes += self._store.chunks.chunk(chunk).size_bytes
            passed_ns = now_ns - self._told_ns
            if passed_ns < REPORT_EVERY_NS:
                return
            new_bytes = self._received_bytes - self._told_bytes
            self._told_bytes, self._told_ns = self._received_bytes, now_ns
            received_bytes = self._received_bytes
        rate = new_bytes * NS_PER_S / passed_ns
        self._post(events.TransferAdvanced(plan, received_bytes, rate))

    def peer_lost(self, plan: PlanId, peer: WorkerId) -> None:
        """The manager sees it by itself; the plan goes on meanwhile."""
        logging.warning("plan=%d goes on without peer=%s", plan, peer)

    def ended(self, outcome: MulticastOutcome) -> None:
        """Tells that our part is over."""
        if outcome.num_missing:
            logging.warning(
                "plan=%d missing=%d: %s",
                outcome.plan,
                outcome.num_missing,
                outcome.reason,
            )
        self._post(events.TransferAdvanced(outcome.plan, self._received_bytes, 0.0))
        self._post(events.TransferOver(outcome.plan, outcome.num_missing))
