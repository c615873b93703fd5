"""One member's part in a multicast: no barrier, no clock that others share."""

import abc
import dataclasses
import threading
import time
from collections.abc import Iterable
from typing import Protocol

from absl import logging

from jscale.core.errors import TransportError
from jscale.core.ids import PlanId, WorkerId
from jscale.core.spans import Bytes
from jscale.plan.multicast_plan import MulticastPlan
from jscale.transport.base import Connection, Landing
from jscale.transport.multicast_state import (
    Action,
    Announce,
    Ask,
    MulticastState,
    WriteChunk,
)

STALL_TIMEOUT_S = 15.0
"""A member that neither sent nor received for so long gives up: whatever could still
help it (a lost peer, a source to ask) would have been noticed by then."""


class ChunkStore(Protocol):
    """Where the chunks of a model lie; thread-safe. `BlockStore` is one."""

    def held_chunks(self) -> bytes:
        """Every chunk that is here: chunk i is bit `i % 8` of byte `i // 8`."""

    def slot(self, chunk: int) -> Bytes | None:
        """Where the chunk's bytes go; None if they are here or arriving.

        The slot is the caller's alone until it calls `landed` or `failed`.
        """

    def landed(self, chunk: int) -> int | None:
        """Notes that they are there; the region that this completed, if one."""

    def failed(self, chunk: int) -> None:
        """Notes that the slot holds rubbish: the chunk is missing again."""

    def chunk_bytes(self, chunk: int) -> Bytes:
        """The bytes of a chunk that is here."""


@dataclasses.dataclass(frozen=True)
class MulticastOutcome:
    """How a member's part ended.

    Attributes:
      plan: which plan.
      num_missing: chunks that did not come; 0 if this member is whole.
      lost_peers: members that were lost on the way, as far as this one knows.
      reason: why chunks are missing; empty if none is.
    """

    plan: PlanId
    num_missing: int
    lost_peers: frozenset[WorkerId]
    reason: str


class MulticastObserver(abc.ABC):
    """Who wants to know. Calls must be short: bytes wait meanwhile."""

    @abc.abstractmethod
    def chunk_landed(self, plan: PlanId, chunk: int, region: int | None) -> None:
        """A chunk is here, and `region` complete with it. On a receive thread."""

    @abc.abstractmethod
    def peer_lost(self, plan: PlanId, peer: WorkerId) -> None:
        """The plan goes on without the peer. On any thread."""

    @abc.abstractmethod
    def ended(self, outcome: MulticastOutcome) -> None:
        """Nothing more will be sent by plan or come. On the sender thread.

        Once for each plan, unless another follows before it ends. The member still
        answers peers that ask for a damaged chunk until it is closed.
        """


class MulticastMember(Landing):
    """Runs one plan for one member, or several in turn. Thread-safe; owns a thread.

    It sends one chunk at a time, as a worker has one link. `start`, and `attach` for
    the connections to `peers`, in any order; peers that announce themselves are
    attached too. After `close` nothing of it touches the store.

    `follow` goes on by another plan for the same chunks (a member was lost, or came
    late): what is on its way lands, and is neither thrown away nor sent again.
    """

    def __init__(
        self,
        plan_id: PlanId,
        plan: MulticastPlan,
        me: WorkerId,
        store: ChunkStore,
        observer: MulticastObserver,
        *,
        stall_timeout_s: float = STALL_TIMEOUT_S,
    ) -> None:
        self._me = me
        self._num_chunks = plan.num_chunks
        self._store = store
        self._observer = observer
        self._stall_timeout_s = stall_timeout_s
        self._changed = threading.Condition()
        # Guarded by _changed:
        self._plan_id = plan_id
        self._members = frozenset(plan.members)
        self._state = MulticastState(plan, me, store.held_chunks())
        self._connections: dict[WorkerId, Connection] = {}
        self._arriving: dict[int, Connection] = {}
        self._progress_s = time.monotonic()
        self._is_closing = False
        self._has_ended = False
        self._thread = threading.Thread(
            target=self._run, name=f"multicast-{plan_id}", daemon=True
        )

    @property
    def plan_id(self) -> PlanId:
        """Which plan this is a part of."""
        return self._plan_id

    @property
    def peers(self) -> frozenset[WorkerId]:
        """Members to be connected to.

        Those it sends to or receives from; and the plan's source, to ask when one of
        them is lost, which therefore needs everyone.
        """
        return self._state.peers

    @property
    def members(self) -> frozenset[WorkerId]:
        """Everyone who takes part."""
        return self._members

    @property
    def num_missing(self) -> int:
        """Chunks that are not here yet."""
        return self._state.num_missing

    def start(self) -> None:
        """Begins to send what is held to whom is ready; called once."""
        with self._changed:
            self._progress_s = time.monotonic()
        self._thread.start()

    def follow(self, plan_id: PlanId, plan: MulticastPlan) -> None:
        """Goes on by this plan in place of the last one, from what is held.

        Chunks that arrive just now count as held: peers are told so. Whoever is in both
        plans stays connected; connect to those of `peers` that are new.

        Args:
          plan_id: its number.
          plan: for the same chunks; this member is in it.
        """
        assert plan.num_chunks == self._num_chunks, (plan_id, plan.num_chunks)
        with self._changed:
            lost = self._state.lost_peers.difference(self._connections)
            self._plan_id = plan_id
            self._members = frozenset(plan.members)
            self._state = MulticastState(plan, self._me, self._store.held_chunks())
            for peer in self._members.intersection(self._connections):
                self._state.connected(peer)
            for peer in self._members.intersection(lost):
                self._state.lost(peer)
            self._has_ended = False
            self._progress_s = time.monotonic()
            self._changed.notify_all()

    def attach(self, connection: Connection) -> None:
        """Uses the connection for what goes to its peer, unless there is one."""
        with self._changed:
            if self._connections.setdefault(connection.peer, connection) is connection:
                self._state.connected(connection.peer)
                self._changed.notify()

    def announced(self, connection: Connection, held: bytes) -> None:
        """The peer is ready to receive and holds the chunks of the bitmap."""
        self.attach(connection)
        with self._changed:
            self._progress_s = time.monotonic()
            self._state.announced(connection.peer, held)
            self._changed.notify()

    def asked(self, connection: Connection, chunk: int) -> None:
        """The peer wants the chunk (again)."""
        self.attach(connection)
        with self._changed:
            self._state.asked(connection.peer, chunk)
            self._changed.notify()

    def lost(self, connection: Connection) -> None:
        """The connection is gone; if the plan used it, so is the peer."""
        if self._connections.get(connection.peer) is connection:
            self.unreachable(connection.peer)

    def unreachable(self, peer: WorkerId) -> None:
        """Goes on without a peer: it is lost, or could not be connected to."""
        with self._changed:
            self._connections.pop(peer, None)
            if peer not in self._members or peer in self._state.lost_peers:
                return
            self._state.lost(peer)
            plan_id = self._plan_id
            self._changed.notify()
        self._observer.peer_lost(plan_id, peer)

    def drop(self, chunks: Iterable[int]) -> None:
        """Fetches chunks again that the store no longer holds (a wrong digest)."""
        with self._changed:
            self._state.dropped(chunks)
            self._changed.notify()

    def landed_otherwise(self, chunk: int, region: int | None) -> None:
        """The store was given a chunk by other means (disk): it is sent on at once.

        Args:
          chunk: which.
          region: what it completed, if one: what the store said.
        """
        with self._changed:
            self._progress_s = time.monotonic()
            self._state.landed(chunk)
            self._changed.notify_all()
        self._observer.chunk_landed(self._plan_id, chunk, region)

    def missed(self, chunk: int) -> None:
        """The chunk was to come by other means, and will not: it is asked for."""
        with self._changed:
            self._state.missed(chunk)
            self._changed.notify_all()

    def close(self) -> None:
        """Stops at once, finished or not; a second call does nothing.

        Waits for a chunk that is being sent, at most the transport's timeout. A peer
        in the midst of sending us a chunk is cut off if it does not end by then.
        """
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        has_started = self._thread.ident is not None
        if has_started and self._thread is not threading.current_thread():
            self._thread.join()
        with self._changed:
            self._changed.wait_for(lambda: not self._arriving, timeout=1.0)
            laggards = set(self._arriving.values())
        for connection in laggards:
            connection.close()

    def slot(self, connection: Connection, chunk: int) -> Bytes | None:
        """See `Landing.slot`.

        Raises:
          TransportError: the plan has no such chunk.
        """
        if not 0 <= chunk < self._num_chunks:
            raise TransportError(
                f"chunk {chunk} of plan {self._plan_id} from {connection.peer}, which "
                f"has {self._num_chunks}: the members do not share one plan"
            )
        with self._changed:
            if self._is_closing:
                return None
            slot = self._store.slot(chunk)
            if slot is not None:
                self._arriving[chunk] = connection
            return slot

    def landed(self, connection: Connection, chunk: int) -> None:
        """See `Landing.landed`."""
        del connection
        region = self._store.landed(chunk)
        with self._changed:
            del self._arriving[chunk]
            self._progress_s = time.monotonic()
            self._state.landed(chunk)
            self._changed.notify_all()
        self._observer.chunk_landed(self._plan_id, chunk, region)

    def failed(self, connection: Connection, chunk: int) -> None:
        """See `Landing.failed`."""
        self._store.failed(chunk)
        with self._changed:
            del self._arriving[chunk]
            self._state.failed(connection.peer, chunk)
            self._changed.notify_all()

    def _run(self) -> None:
        reason = "the sender thread failed: see the log"
        try:
            while not self._is_closing:
                match self._next():
                    case MulticastOutcome() as outcome:
                        self._observer.ended(outcome)
                    case (plan_id, action):
                        self._carry_out(plan_id, action)
            reason = "it was cancelled"
        finally:
            if not self._has_ended:
                with self._changed:
                    outcome = self._outcome(reason)
                self._observer.ended(outcome)

    def _next(self) -> tuple[PlanId, Action] | MulticastOutcome | None:
        """What to do next, by which plan, or how it ended; None: it is closing.

        A plan ends when it is over, or nothing has moved for too long.
        """
        with self._changed:
            while not self._is_closing:
                if (action := self._state.next_action()) is not None:
                    return self._plan_id, action
                left_s = None
                if not self._has_ended:
                    if self._state.is_over:
                        return self._outcome("nobody who holds them is left")
                    patience_s = self._stall_timeout_s
                    left_s = self._progress_s + patience_s - time.monotonic()
                    if left_s <= 0:
                        return self._outcome(f"nothing moved for {patience_s:g} s")
                self._changed.wait(left_s)
            return None

    def _carry_out(self, plan_id: PlanId, action: Action) -> None:
        with self._changed:
            connection = self._connections.get(action.peer)
            held = self._held_and_arriving() if isinstance(action, Announce) else b""
        if connection is None:
            return  # It was lost since.
        try:
            match action:
                case WriteChunk(_, chunk):
                    view = self._store.chunk_bytes(chunk)
                    connection.write_chunk(plan_id, chunk, view)
                    self._progress_s = time.monotonic()
                case Ask(_, chunk):
                    connection.ask(plan_id, chunk)
                case Announce():
                    connection.announce(plan_id, held)
        except TransportError as error:
            logging.warning("plan=%d lost=%s: %s", plan_id, action.peer, error)
            self.lost(connection)

    def _held_and_arriving(self) -> bytes:
        """What need not be sent here: if it comes damaged, we ask for it."""
        held = bytearray(self._store.held_chunks())
        for chunk in self._arriving:
            held[chunk // 8] |= 1 << chunk % 8
        return bytes(held)

    def _outcome(self, reason: str) -> MulticastOutcome:
        """How the plan ends now."""
        self._has_ended = True
        return MulticastOutcome(
            plan=self._plan_id,
            num_missing=self._state.num_missing,
            lost_peers=self._state.lost_peers,
            reason=reason if self._state.num_missing else "",
        )
