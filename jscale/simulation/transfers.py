"""The multicasts that a simulated worker is part of: `jscale.cluster.transfer`."""

from collections.abc import Callable
from typing import Protocol

from jscale.cluster import worker_events as events
from jscale.cluster.arrangement import plan_of
from jscale.cluster.messages import JoinMulticast
from jscale.core.chunks import ChunkTable
from jscale.core.ids import PlanId, WorkerId
from jscale.plan.multicast_plan import MulticastPlan
from jscale.simulation.chunk_store import SimulatedStore
from jscale.simulation.clock import VirtualClock
from jscale.simulation.multicasts import SimulatedMember
from jscale.simulation.network import Flow
from jscale.simulation.rounds import Rounds


class Plans:
    """Every plan once, though each member could compute it: they are immutable."""

    def __init__(self, clock: VirtualClock, barrier_ns: int | None = None) -> None:
        """None yet; with a barrier, members go by rounds."""
        self._clock = clock
        self._barrier_ns = barrier_ns
        self._plans: dict[PlanId, MulticastPlan] = {}
        self._rounds: dict[PlanId, Rounds] = {}

    def find(self, command: JoinMulticast, chunks: ChunkTable) -> MulticastPlan:
        """What the command means."""
        plan = self._plans.get(command.plan)
        if plan is None:
            leading = len(chunks.chunks_of(events.EXECUTABLES_REGION))
            plan = plan_of(command, chunks.num_chunks, num_leading=leading)
            self._plans[command.plan] = plan
            if self._barrier_ns is not None:
                rounds = Rounds(plan, self._clock, self._barrier_ns)
                self._rounds[command.plan] = rounds
        return plan

    def rounds(self, plan: PlanId) -> Rounds | None:
        """The rounds of a plan that was found, if members go by any."""
        return self._rounds.get(plan)


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

    def stop_flow(self, flow: Flow) -> None:
        """Takes bytes back that are on their way."""


class SimulatedTransfers:
    """Owns the member that runs at a worker, of one plan after the other."""

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
        self.member: SimulatedMember | None = None
        self._joining: PlanId | None = None
        self._early: dict[PlanId, list[Callable[[SimulatedMember], None]]] = {}

    def start(self, command: JoinMulticast) -> None:
        """Takes part in a plan, in place of an earlier one."""
        self._joining = command.plan
        if self._setup_ns:
            self._clock.after(self._setup_ns, self._join, command)
        else:
            self._join(command)

    def stop(self, plan: PlanId) -> None:
        """Ends our part in a plan; what has arrived stays."""
        if self._joining == plan:
            self.stop_all()

    def stop_all(self) -> None:
        """Ends our part in every plan."""
        self._joining = None
        self._early.clear()
        if self.member is not None:
            self.member.close()
            self.member = None
        self._store.arriving.clear()

    def peer_lost(self, peer: WorkerId) -> None:
        """The connection to a peer broke, and what it was sending with it."""
        cut = [c for c, sender in self._store.arriving.items() if sender == peer]
        for chunk in cut:
            del self._store.arriving[chunk]
        if self.member is not None:
            self.member.lost(peer)
            for chunk in cut:
                self.member.failed(peer, chunk)

    def place_executables(self, size_bytes: int) -> None:
        """Puts what was compiled where others can be sent it."""
        self.stop_all()
        self._store.reserve_executables(size_bytes)
        self._store.fill(events.EXECUTABLES_REGION)

    def read(self, chunk: int) -> int | None:
        """A chunk was read, by its number without executables: it is sent on.

        Returns the region that it completed, if one.
        """
        number = self._store.num_leading + chunk
        if self._store.holds(number):
            return None
        region = self._store.landed(number)
        if self.member is not None:
            self.member.landed(number)
        return region

    # --- what the member says -----------------------------------------------------

    def announce(self, plan: PlanId, peer: WorkerId) -> None:
        """Tells the peer what is here or arriving."""
        me, held = self._worker, self._store.held_and_arriving()
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
        self, peer: WorkerId, chunk: int, written: Callable[[], None]
    ) -> Flow | None:
        """Sends the peer a chunk."""
        me, num_leading = self._worker, self._store.num_leading
        size_bytes = self._store.chunks.chunk(chunk).size_bytes

        def if_it_counts_alike(
            act: Callable[[SimulatedTransfers], None],
        ) -> Callable[[SimulatedTransfers], None]:
            """What comes for a plan with other executables is for nobody."""

            def act_there(there: SimulatedTransfers) -> None:
                if there.counts_from(num_leading):
                    act(there)

            return act_there

        self._peers.to_transfers(
            peer, if_it_counts_alike(lambda there: there.begins(me, chunk))
        )
        return self._peers.send_chunk(
            peer,
            size_bytes,
            written,
            if_it_counts_alike(lambda there: there.landed(me, chunk)),
        )

    def abort(self, flow: Flow) -> None:
        """Takes a chunk back that is on its way."""
        self._peers.stop_flow(flow)

    def over(self, plan: PlanId, num_missing: int) -> None:
        """Nothing more will be sent by plan or come."""
        self._post(events.TransferOver(plan, num_missing))

    # --- what peers say -------------------------------------------------------------

    def reach(self, plan: PlanId, act: Callable[[SimulatedMember], None]) -> None:
        """Does something to our part of a plan, as soon as there is one."""
        member = self.member
        if member is not None and member.plan_id == plan:
            act(member)
        elif member is None or plan > member.plan_id:
            self._early.setdefault(plan, []).append(act)

    def counts_from(self, num_leading: int) -> bool:
        """Whether chunks of blocks have the same numbers here."""
        return self._store.num_leading == num_leading

    def begins(self, peer: WorkerId, chunk: int) -> None:
        """The first bytes of a chunk have come."""
        if self.member is not None and not self._store.holds(chunk):
            self._store.arriving.setdefault(chunk, peer)

    def landed(self, peer: WorkerId, chunk: int) -> None:
        """The last bytes of a chunk have come, by whatever plan."""
        if self._store.arriving.get(chunk) != peer or self.member is None:
            return
        region = self._store.landed(chunk)
        self.member.landed(chunk)
        if region is not None:
            self._post(events.RegionFilled(region))

    def _join(self, command: JoinMulticast) -> None:
        if self._joining != command.plan:
            return  # It was stopped before it began.
        size_bytes = command.bundle.size_bytes if command.bundle else 0
        if self._store.reserve_executables(size_bytes) and self.member is not None:
            self.member.close()
            self.member = None
        plan = self._plans.find(command, self._store.chunks)
        member = self.member
        if member is None:
            member = SimulatedMember(self._worker, self._store, self, self._clock)
            self.member = member
        rounds, held = self._plans.rounds(command.plan), self._store.held_chunks()
        if rounds is not None:
            for chunk in range(self._store.chunks.num_chunks):
                if self._store.holds(chunk):
                    rounds.landed(self._worker, chunk)
        member.follow(command.plan, plan, held, rounds)
        for peer in sorted(member.state.peers):
            if self._peers.connect(peer):
                member.connected(peer)
            else:
                member.state.lost(peer)
        early = self._early.pop(command.plan, [])
        for old in [each for each in self._early if each < command.plan]:
            del self._early[old]
        for act in early:
            act(member)
        member.go_on()
