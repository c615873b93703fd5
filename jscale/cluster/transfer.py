"""The multicasts that a worker is part of, and how they report."""

import threading
import time
from collections.abc import Callable

from absl import logging

from jscale.cluster import worker_events as events
from jscale.cluster.arrangement import plan_of
from jscale.cluster.messages import Bundle, JoinMulticast, Member
from jscale.cluster.peers import Peers
from jscale.cluster.traffic import CountedChunks, Traffic
from jscale.core.errors import TransportError
from jscale.core.ids import PlanId, WorkerId
from jscale.core.units import NS_PER_MS, NS_PER_S
from jscale.plan.multicast_plan import MulticastPlan
from jscale.store.block_reader import ChunkSlots
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
    its place: what is on its way lands. Chunks that come from files land here too, and
    go on to peers at once; they know nothing of plans, nor of the executables' size.
    """

    def __init__(
        self,
        worker: WorkerId,
        peers: Peers,
        post: Callable[[events.WorkerEvent], None],
        traffic: Traffic,
        device_failed: Callable[[BaseException], None],
    ) -> None:
        self._worker = worker
        self._peers = peers
        self._post = post
        self._traffic = traffic
        self._device_failed = device_failed
        self._bundle: Bundle | None = None
        self._region_sha256: str | None = None
        self._connecting: list[threading.Thread] = []
        # Chunks land by their numbers and are told to the member, or numbers and member
        # change: never both at once.
        self._lock = threading.Lock()
        self._member: MulticastMember | None = None

    def start(self, command: JoinMulticast, store: BlockStore) -> None:
        """Takes part in a plan, and in no other any more."""
        member = self._member
        if member is not None and command.bundle == self._bundle:
            plan = _plan(command, store)
            with self._lock:
                self._peers.plans.follow(member, command.plan, plan)
        else:
            self.stop_all()
            with self._lock:
                self._reserve(store, command.bundle)
                plan = _plan(command, store)
                observer = _Observer(self._post, store)
                counted = CountedChunks(store, self._traffic, self._device_failed)
                member = MulticastMember(
                    command.plan, plan, self._worker, counted, observer
                )
                self._member = member
            self._bundle = command.bundle
            self._peers.plans.add(member)
            member.start()
        # Of two members the earlier connects, so that there is one connection.
        later = command.members[plan.index_of(self._worker) + 1 :]
        partners = [each for each in later if each.worker in member.peers]
        thread = threading.Thread(
            target=self._connect,
            args=(member, partners),
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
        """Ends our part in any plan: no peer writes into the store any more."""
        with self._lock:
            member, self._member = self._member, None
        if member is not None:
            self._peers.plans.remove(member.plan_id)
            member.close()

    def place_executables(self, store: BlockStore, data: bytes, sha256: str) -> None:
        """Puts them where others can be sent them, which numbers chunks anew."""
        self.stop_all()  # What has ended still answers, by the old numbers.
        with self._lock:
            store.place_executables(data)
            self._region_sha256 = sha256

    def slots_for_files(self, store: BlockStore) -> ChunkSlots:
        """Where chunks from files go, numbered as if there were no executables."""
        return _SlotsForFiles(self, store)

    def take_slot(self, store: BlockStore, chunk: int) -> memoryview | None:
        """See `ChunkSlots.host_slot`."""
        with self._lock:
            return store.host_slot(_numbered(store, chunk))

    def landed(self, store: BlockStore, chunk: int) -> None:
        """A chunk has come from a file: peers are sent it, the loop told of regions."""
        with self._lock:
            number = _numbered(store, chunk)
            region = store.landed(number)
            if self._member is not None:
                self._member.landed_otherwise(number, region)
                return
        if region is not None:
            self._post(events.RegionFilled(region))

    def failed(self, store: BlockStore, chunk: int) -> None:
        """A chunk could not be read; if somebody sends it, it is asked for."""
        with self._lock:
            number = _numbered(store, chunk)
            store.failed(number)
            if self._member is not None:
                self._member.missed(number)

    def close(self) -> None:
        """Ends everything."""
        self.stop_all()
        for thread in self._connecting:
            thread.join()

    def _reserve(self, store: BlockStore, bundle: Bundle | None) -> None:
        """Room for the executables of a plan; others of that size make room too."""
        sha256 = bundle.sha256 if bundle else None
        if sha256 != self._region_sha256:
            store.reserve_executables(0)
        store.reserve_executables(bundle.size_bytes if bundle else 0)
        self._region_sha256 = sha256

    def _connect(self, member: MulticastMember, partners: list[Member]) -> None:
        for partner in partners:
            try:
                self._peers.connection(partner.worker, partner.address)
            except TransportError as error:
                logging.warning("peer=%s: %s", partner.worker, error)
                member.unreachable(partner.worker)


def is_outdated(event: events.WorkerEvent, store: BlockStore) -> bool:
    """Whether executables came of which the event tells, and made room since.

    A plan that brings others may have been joined while the event was on its way.
    """
    is_of_them = event == events.RegionFilled(events.EXECUTABLES_REGION)
    return is_of_them and not store.has_executables


def _plan(command: JoinMulticast, store: BlockStore) -> MulticastPlan:
    """What the command means for the chunks of the store."""
    num_leading = len(store.chunks.chunks_of(events.EXECUTABLES_REGION))
    return plan_of(command, store.chunks.num_chunks, num_leading=num_leading)


def _numbered(store: BlockStore, chunk: int) -> int:
    """The number of a chunk behind those of the executables, as they are now."""
    return len(store.chunks.chunks_of(events.EXECUTABLES_REGION)) + chunk


class _SlotsForFiles(ChunkSlots):
    """Hands on; called on reading threads."""

    def __init__(self, transfers: Transfers, store: BlockStore) -> None:
        self._transfers = transfers
        self._store = store

    def host_slot(self, chunk: int) -> memoryview | None:
        return self._transfers.take_slot(self._store, chunk)

    def landed(self, chunk: int) -> None:
        self._transfers.landed(self._store, chunk)

    def failed(self, chunk: int) -> None:
        self._transfers.failed(self._store, chunk)


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
