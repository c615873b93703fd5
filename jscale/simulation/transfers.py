"""The multicasts that a simulated worker is part of: `jscale.cluster.transfer`."""

from collections.abc import Callable
from typing import Protocol

from jscale.cluster import worker_events as events
from jscale.cluster.arrangement import plan_of
from jscale.cluster.messages import JoinMulticast
from jscale.core.ids import PlanId, WorkerId
from jscale.plan.multicast_plan import MulticastPlan
from jscale.simulation.chunk_store import SimulatedStore
from jscale.simulation.clock import VirtualClock
from jscale.simulation.multicasts import SimulatedMember
from jscale.simulation.network import Flow


class Plans:
    """Every plan once, though each member could compute it: they are immutable."""

    def __init__(self) -> None:
        self._plans: dict[PlanId, MulticastPlan] = {}

    def find(
        self, command: JoinMulticast, num_chunks: int, num_leading: int
    ) -> MulticastPlan:
        """What the command means."""
        plan = self._plans.get(command.plan)
        if plan is None:
            plan = plan_of(command, num_chunks, num_leading=num_leading)
            self._plans[command.plan] = plan
        return plan


class Peers(Protocol):
    """The data plane of a worker."""

    def connect(self, peer: WorkerId) -> bool:
        """Whether the peer is there; it hears of our end from now on, and we of its."""

    def to_transfers(
        self,
        peer: WorkerId,
        act: "Callable[[SimulatedTransfers], None]",
    ) -> None:
        """Has something done at the peer, when a message has reached it."""

    def send_chunk(
        self,
        peer: WorkerId,
        size_bytes: int,
        written: Callable[[], None],
        landed: "Callable[[SimulatedTransfers], None]",
    ) -> Flow | None:
        """Sends bytes; `written` here when they are out, `landed` there."""


class SimulatedTransfers:
    """Owns the members that run at a worker."""

    def __init__(
        self,
        worker: WorkerId,
        store: SimulatedStore,
        peers: Peers,
        plans: Plans,
        post: Callable[[events.WorkerEvent], None],
        clock: VirtualClock,
        *,
        setup_ns: int,
    ) -> None:
        self._worker = worker
        self._store = store
        self._peers = peers
        self._plans = plans
        self._post = post
        self._clock = clock
        self._setup_ns = setup_ns
        self._members: dict[PlanId, SimulatedMember] = {}
        self._early: dict[PlanId, list[Callable[[SimulatedMember], None]]] = {}

    def start(self, command: JoinMulticast) -> None:
        """Takes part in a plan; earlier ones are over."""
        self.stop_all()
        self._clock.after(self._setup_ns, self._join, command)
        self._early.setdefault(command.plan, [])

    def stop(self, plan: PlanId) -> None:
        """Ends our part; what has arrived stays."""
        self._early.pop(plan, None)
        member = self._members.pop(plan, None)
        if member is not None:
            member.close()

    def stop_all(self) -> None:
        """Ends our part in every plan."""
        for plan in [*self._members, *self._early]:
            self.stop(plan)

    def peer_lost(self, peer: WorkerId) -> None:
        """The connection to a peer broke."""
        for member in list(self._members.values()):
            if peer in member.state.peers:
                member.lost(peer)

    # --- what members say --------------------------------------------------------

    def announce(self, plan: PlanId, peer: WorkerId, held: bytes) -> None:
        """Tells the peer what is here."""
        me = self._worker
        self._peers.to_transfers(
            peer, lambda there: there.reach(plan, lambda m: m.announced(me, held))
        )

    def ask(self, plan: PlanId, peer: WorkerId, chunk: int) -> None:
        """Asks the peer for a chunk."""
        me = self._worker
        self._peers.to_transfers(
            peer, lambda there: there.reach(plan, lambda m: m.asked(me, chunk))
        )

    def write(
        self, plan: PlanId, peer: WorkerId, chunk: int, written: Callable[[], None]
    ) -> Flow | None:
        """Sends the peer a chunk."""
        size_bytes = self._store.chunks.chunk(chunk).size_bytes
        return self._peers.send_chunk(
            peer,
            size_bytes,
            written,
            lambda there: there.reach(plan, lambda m: m.landed(chunk)),
        )

    def filled(self, region: int) -> None:
        """A region is complete here."""
        self._post(events.RegionFilled(region))

    def over(self, plan: PlanId, num_missing: int) -> None:
        """Nothing more will be sent by plan or come."""
        self._post(events.TransferOver(plan, num_missing))

    # --- what peers say ----------------------------------------------------------

    def reach(self, plan: PlanId, act: Callable[[SimulatedMember], None]) -> None:
        """Does something to our member of a plan, as soon as there is one."""
        member = self._members.get(plan)
        if member is not None:
            act(member)
        else:
            self._early.setdefault(plan, []).append(act)

    def _join(self, command: JoinMulticast) -> None:
        early = self._early.pop(command.plan, None)
        if early is None:
            return  # It was stopped before it began.
        chunks = self._store.chunks
        num_leading = len(chunks.chunks_of(events.EXECUTABLES_REGION))
        plan = self._plans.find(command, chunks.num_chunks, num_leading)
        member = SimulatedMember(
            command.plan, plan, self._worker, self._store, self, self._clock
        )
        self._members[command.plan] = member
        for peer in sorted(member.state.peers):
            if self._peers.connect(peer):
                member.connected(peer)
            else:
                member.state.lost(peer)
        for act in early:
            act(member)
        member.go_on()
