"""What one member of a multicast does next. Pure: no thread, no socket, no clock."""

import collections
import dataclasses
import heapq
from collections.abc import Iterable

from jscale.core.ids import WorkerId
from jscale.plan.multicast_plan import MulticastPlan

ASKS_PER_CHUNK_MAX = 8
"""A chunk that was damaged or lost so often is given up: something is broken."""


@dataclasses.dataclass(frozen=True)
class Announce:
    """Tell the peer that we are ready, and what we hold."""

    peer: WorkerId


@dataclasses.dataclass(frozen=True)
class Ask:
    """Ask the peer for a chunk that another one failed to bring."""

    peer: WorkerId
    chunk: int


@dataclasses.dataclass(frozen=True)
class WriteChunk:
    """Send the peer a chunk that we hold."""

    peer: WorkerId
    chunk: int


Action = Announce | Ask | WriteChunk


class MulticastState:
    """One member's part of a plan, and how far it is. Mutable; its owner guards it.

    Sends go in the order of the plan as far as their chunks are here and their targets
    are there: one that must wait holds up no other. So a late chunk, a lost peer or a
    target that joins late costs only what depends on it.
    """

    def __init__(self, plan: MulticastPlan, me: WorkerId, held: bytes) -> None:
        """Nothing is connected yet.

        Args:
          plan: what moves when.
          me: a member of the plan.
          held: the chunks that are here: chunk i is bit `i % 8` of byte `i // 8`.
        """
        index = plan.index_of(me)
        self._helpers = plan.helpers_of(index)
        self._to_fetch = plan.fetches_of(index)
        self._is_held = bytearray(_flags(held, plan.num_chunks))
        self._num_missing = plan.num_chunks - sum(self._is_held)
        self._expected: dict[WorkerId, set[int]] = {}
        for transfer in plan.receives(me):
            expected = self._expected.setdefault(transfer.source, set())
            if not self._is_held[transfer.chunk]:
                expected.add(transfer.chunk)
        self._connected: set[WorkerId] = set()
        self._lost: set[WorkerId] = set()
        self._unreachable: set[int] = set()
        self._num_asks: dict[int, int] = {}
        # A send is (step, peer, chunk): to be done, or waiting for a chunk or a peer.
        self._urgent: collections.deque[Announce | Ask] = collections.deque()
        self._ready: list[tuple[int, WorkerId, int]] = []
        self._by_chunk: dict[int, list[tuple[int, WorkerId, int]]] = {}
        self._by_peer: dict[WorkerId, list[tuple[int, WorkerId, int]]] = {}
        self._has_announced: set[WorkerId] = set()
        for transfer in plan.sends(me):
            send = (transfer.step, transfer.target, transfer.chunk)
            self._by_peer.setdefault(transfer.target, []).append(send)
        # Whoever loses its peer asks a source, which therefore knows those it helps.
        helped = _helped_by(plan, me)
        self.peers = frozenset(
            {*self._helpers, *helped, *self._expected, *self._by_peer} - {me}
        )

    @property
    def num_missing(self) -> int:
        """Chunks that are not here."""
        return self._num_missing

    @property
    def lost_peers(self) -> frozenset[WorkerId]:
        """Peers that are gone."""
        return frozenset(self._lost)

    @property
    def is_over(self) -> bool:
        """Nothing is left to send, and nothing more will come."""
        return (
            self._num_missing <= len(self._unreachable)
            and not self._urgent
            and not self._ready
            and not any(
                chunk not in self._unreachable and sends
                for chunk, sends in self._by_chunk.items()
            )
            and not any(self._by_peer.values())
        )

    def holds(self, chunk: int) -> bool:
        """Whether the chunk is here."""
        return bool(self._is_held[chunk])

    def connected(self, peer: WorkerId) -> None:
        """There is a connection to the peer now."""
        if peer in self._connected or peer in self._lost:
            return
        self._connected.add(peer)
        self._urgent.append(Announce(peer))

    def announced(self, peer: WorkerId, held: bytes) -> None:
        """The peer is ready to receive, and need not be sent what it holds."""
        if peer in self._lost:
            return
        self._has_announced.add(peer)
        if peer in self._helpers:
            for chunk in self._to_fetch:
                self.missed(chunk)
            self._to_fetch = range(0)
        flags = _flags(held, len(self._is_held))
        for send in self._by_peer.pop(peer, ()):
            if not flags[send[2]]:
                self._add_send(send)

    def asked(self, peer: WorkerId, chunk: int) -> None:
        """The peer wants a chunk; it goes before all others."""
        if peer not in self._lost and 0 <= chunk < len(self._is_held):
            self._add_send((-1, peer, chunk))

    def landed(self, chunk: int) -> None:
        """The chunk is here."""
        if self._is_held[chunk]:
            return
        self._is_held[chunk] = 1
        self._num_missing -= 1
        self._unreachable.discard(chunk)
        for send in self._by_chunk.pop(chunk, ()):
            heapq.heappush(self._ready, send)

    def failed(self, peer: WorkerId, chunk: int) -> None:
        """The chunk came damaged from the peer, or only in part."""
        if not self._is_held[chunk]:
            self._ask(chunk, damaged_by=peer)

    def missed(self, chunk: int) -> None:
        """The chunk was to come by other means (disk), and will not."""
        if not self._is_held[chunk]:
            self._ask(chunk)

    def dropped(self, chunks: Iterable[int]) -> None:
        """Chunks that were here are not any more: their block's digest was wrong."""
        for chunk in chunks:
            if self._is_held[chunk]:
                self._is_held[chunk] = 0
                self._num_missing += 1
                self._ask(chunk)

    def lost(self, peer: WorkerId) -> None:
        """The peer is gone: nothing goes to it, and what it owed is asked elsewhere."""
        if peer in self._lost:
            return
        self._lost.add(peer)
        self._connected.discard(peer)
        self._by_peer.pop(peer, None)
        self._ready = [send for send in self._ready if send[1] != peer]
        heapq.heapify(self._ready)
        for chunk, sends in self._by_chunk.items():
            self._by_chunk[chunk] = [send for send in sends if send[1] != peer]
        asked_in_vain = {
            action.chunk
            for action in self._urgent
            if isinstance(action, Ask) and action.peer == peer
        }
        kept = [action for action in self._urgent if action.peer != peer]
        self._urgent = collections.deque(kept)
        for chunk in sorted(self._expected.pop(peer, set()) | asked_in_vain):
            if not self._is_held[chunk]:
                self._ask(chunk)

    def next_action(self) -> Action | None:
        """What to do now, once; None: wait for one of the calls above."""
        if self._urgent:
            return self._urgent.popleft()
        while self._ready:
            _, peer, chunk = heapq.heappop(self._ready)
            if self._is_held[chunk]:
                return WriteChunk(peer, chunk)
            self._add_send((-1, peer, chunk))
        return None

    def _add_send(self, send: tuple[int, WorkerId, int]) -> None:
        chunk = send[2]
        if self._is_held[chunk]:
            heapq.heappush(self._ready, send)
        else:
            self._by_chunk.setdefault(chunk, []).append(send)

    def _ask(self, chunk: int, damaged_by: WorkerId | None = None) -> None:
        """Asks for the chunk: a source, as it holds all, or else who can.

        Others may be waiting for this very chunk from us, so they come last.
        """
        num_asks = self._num_asks[chunk] = self._num_asks.get(chunk, 0) + 1
        candidates = (*self._helpers, damaged_by, *sorted(self._expected))
        helper = next((peer for peer in candidates if peer in self._connected), None)
        if helper is None or num_asks > ASKS_PER_CHUNK_MAX:
            self._unreachable.add(chunk)
            return
        self._expected.setdefault(helper, set()).add(chunk)
        self._urgent.append(Ask(helper, chunk))


def _helped_by(plan: MulticastPlan, me: WorkerId) -> list[WorkerId]:
    """Those that may ask this member, if it is a source."""
    if me not in plan.sources:
        return []
    return [
        member
        for index, member in enumerate(plan.members)
        if me in plan.helpers_of(index)
    ]


def _flags(held: bytes, num_chunks: int) -> list[int]:
    """One number a chunk, 1 if it is held; missing bits are 0."""
    flags = [byte >> bit & 1 for byte in held for bit in range(8)][:num_chunks]
    return flags + [0] * (num_chunks - len(flags))
