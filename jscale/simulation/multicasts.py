"""One member's part in a simulated multicast: `MulticastState`, and flows for bytes."""

from collections.abc import Callable
from typing import Protocol

from jscale.core.ids import PlanId, WorkerId
from jscale.core.units import NS_PER_S
from jscale.plan.multicast_plan import MulticastPlan
from jscale.simulation.chunk_store import SimulatedStore
from jscale.simulation.clock import Timer, VirtualClock
from jscale.simulation.network import Flow
from jscale.simulation.rounds import Rounds
from jscale.transport.multicast_state import (
    Announce,
    Ask,
    MulticastState,
    WriteChunk,
)

STALL_NS = 15 * NS_PER_S
"""A member that neither sent nor received for so long gives up."""


class MulticastEdge(Protocol):
    """How a member reaches the others, and tells its worker."""

    def announce(self, plan: PlanId, peer: WorkerId) -> None:
        """Tells the peer what is here or arriving."""

    def ask(self, plan: PlanId, peer: WorkerId, chunk: int) -> None:
        """Asks the peer for a chunk."""

    def write(
        self, peer: WorkerId, chunk: int, written: Callable[[], None]
    ) -> Flow | None:
        """Sends the peer a chunk; `written` is called when it is out."""

    def abort(self, flow: Flow) -> None:
        """Takes a chunk back that is on its way."""

    def over(self, plan: PlanId, num_missing: int) -> None:
        """Nothing more will be sent by plan or come."""


class SimulatedMember:
    """Sends chunks in the order of the plan, one at a time to each peer.

    A real member writes chunks one after the other, but a write ends when the bytes are
    with the connection, not when they are with the peer: so it goes on to another peer
    while the chunk before is on its way, and waits where the same peer is meant. (If it
    waited for every chunk to arrive, a member that is ahead by one message's latency
    would compete with another for its target, and both be late for ever: three members
    would take 1.97 times as long.)
    """

    def __init__(
        self,
        me: WorkerId,
        store: SimulatedStore,
        edge: MulticastEdge,
        clock: VirtualClock,
    ) -> None:
        """It does nothing before it follows a plan."""
        self._me = me
        self._store = store
        self._edge = edge
        self._clock = clock
        self._connected: set[WorkerId] = set()
        self._flows: dict[WorkerId, Flow | None] = {}
        self._blocked: WriteChunk | None = None
        self._rounds: Rounds | None = None
        self._num_held_back = 0
        self._is_over = True
        self._is_closed = False
        self._stall: Timer | None = None

    @property
    def is_over(self) -> bool:
        """It has told that its part has ended."""
        return self._is_over

    def follow(
        self,
        plan_id: PlanId,
        plan: MulticastPlan,
        held: bytes,
        rounds: Rounds | None = None,
    ) -> None:
        """Goes on by this plan, from what is held; in rounds, if there are any."""
        self.plan_id = plan_id
        self._rounds = rounds
        self._num_held_back = 0
        self.state = MulticastState(plan, self._me, held)
        self._blocked = None
        self._is_over = False
        self._progress_ns = self._clock.now_ns
        if self._stall is None:
            self._stall = self._clock.after(STALL_NS, self._look_for_stall)
        for peer in sorted(self._connected & self.state.peers):
            self.state.connected(peer)

    def connected(self, peer: WorkerId) -> None:
        """There is a connection to the peer."""
        self._connected.add(peer)
        self.state.connected(peer)

    def announced(self, peer: WorkerId, held: bytes) -> None:
        """The peer is ready to receive, and holds the chunks of the bitmap."""
        self._progress_ns = self._clock.now_ns
        self.connected(peer)
        self.state.announced(peer, held)
        self.go_on()

    def asked(self, peer: WorkerId, chunk: int) -> None:
        """The peer wants the chunk (again)."""
        self.connected(peer)
        self.state.asked(peer, chunk)
        self.go_on()

    def lost(self, peer: WorkerId) -> None:
        """The peer is gone, and what is on its way there is for nobody."""
        self._connected.discard(peer)
        self.state.lost(peer)
        if self._rounds is not None:
            self._rounds.lost(peer)
        flow = self._flows.pop(peer, None)
        if flow is not None:
            self._edge.abort(flow)
        if self._blocked is not None and self._blocked.peer == peer:
            self._blocked = None
        self.go_on()

    def landed(self, chunk: int) -> None:
        """A chunk has come."""
        self._progress_ns = self._clock.now_ns
        self.state.landed(chunk)
        if self._rounds is not None:
            self._rounds.landed(self._me, chunk)
        self.go_on()

    def failed(self, peer: WorkerId, chunk: int) -> None:
        """A chunk that was on its way will not come."""
        self.state.failed(peer, chunk)
        self.go_on()

    def close(self) -> None:
        """Stops at once; what is on its way arrives."""
        self._is_closed = True
        if self._stall is not None:
            self._stall.cancel()

    def go_on(self) -> None:
        """Does what is to be done next, until a chunk must wait for its peer."""
        while self._blocked is None and not self._is_closed:
            action = self.state.next_action()
            match action:
                case None:
                    break
                case Announce(peer):
                    self._edge.announce(self.plan_id, peer)
                case Ask(peer, chunk):
                    self._edge.ask(self.plan_id, peer, chunk)
                case WriteChunk() if not self._is_held_back(action):
                    self._write_or_wait(action)
        is_idle = not self._flows and not self._num_held_back
        if is_idle and not self._is_over and self.state.is_over:
            self._end()

    def _is_held_back(self, action: WriteChunk) -> bool:
        """Whether a later round sends it."""
        plan_id = self.plan_id

        def send() -> None:
            if self.plan_id == plan_id and not self._is_closed:
                self._num_held_back -= 1
                self._write_or_wait(action)
                self.go_on()

        if self._rounds is None or not self._rounds.when_open(
            action.peer, action.chunk, send
        ):
            return False
        self._num_held_back += 1
        return True

    def _write_or_wait(self, action: WriteChunk) -> None:
        if action.peer in self._flows:
            self._blocked = action
        else:
            self._write(action.peer, action.chunk)

    def _write(self, peer: WorkerId, chunk: int) -> None:
        self._flows[peer] = None
        self._flows[peer] = self._edge.write(peer, chunk, lambda: self._written(peer))

    def _written(self, peer: WorkerId) -> None:
        self._flows.pop(peer, None)
        self._progress_ns = self._clock.now_ns
        blocked = self._blocked
        if blocked is not None and blocked.peer == peer and not self._is_closed:
            self._blocked = None
            self._write(peer, blocked.chunk)
        self.go_on()

    def _look_for_stall(self) -> None:
        due_ns = self._progress_ns + STALL_NS
        self._stall = None
        if self._is_over:
            return
        if due_ns > self._clock.now_ns:
            self._stall = self._clock.at(due_ns, self._look_for_stall)
        else:
            self._end()

    def _end(self) -> None:
        if not self._is_closed:
            self._is_over = True
            self._edge.over(self.plan_id, self.state.num_missing)
