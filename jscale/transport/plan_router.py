"""Which member of which plan a frame is for, in a process with several plans."""

import dataclasses
import threading

from jscale.core.ids import PlanId, WorkerId
from jscale.plan.multicast_plan import MulticastPlan
from jscale.transport.base import Connection
from jscale.transport.multicast import MulticastMember

EARLY_PLANS_MAX = 64
"""Plans not heard of yet, of which announcements are kept, and what was asked after
them: peers may be faster than our manager, and say everything once."""


@dataclasses.dataclass
class _Early:
    """What a peer said of a plan before we heard of it."""

    connection: Connection
    held: bytes
    asked: list[int] = dataclasses.field(default_factory=list)


class PlanRouter:
    """The half of a `Handler` that is about plans. Mutable and thread-safe.

    It also knows every open connection, so that members and connections find each other
    whichever comes first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._members: dict[int, MulticastMember] = {}
        self._landings: dict[int, MulticastMember] = {}
        self._connections: list[Connection] = []
        self._early: dict[int, dict[WorkerId, _Early]] = {}

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Those that are open."""
        return tuple(self._connections)

    def add(self, member: MulticastMember) -> None:
        """From now on what is about its plan goes to the member."""
        with self._lock:
            self._members[member.plan_id] = self._landings[member.plan_id] = member
            connections = list(self._connections)
            early = self._early.pop(member.plan_id, {})
        for connection in connections:
            if connection.peer in member.members:
                member.attach(connection)
        for said in early.values():
            member.announced(said.connection, said.held)
            for chunk in said.asked:
                member.asked(said.connection, chunk)

    def follow(
        self, member: MulticastMember, plan_id: PlanId, plan: MulticastPlan
    ) -> None:
        """Has a member that was added go on by another plan.

        What was sent by earlier plans still lands; what they announce and ask for is
        dropped, as peers say it anew.
        """
        with self._lock:
            self._members.pop(member.plan_id, None)
        member.follow(plan_id, plan)
        self.add(member)

    def remove(self, plan: PlanId) -> None:
        """What still comes for the plan is dropped, and for those that it followed.

        The member is not closed.
        """
        with self._lock:
            self._members.pop(plan, None)
            gone = self._landings.pop(plan, None)
            for each in [p for p, m in self._landings.items() if m is gone]:
                del self._landings[each]

    def opened(self, connection: Connection) -> None:
        """There is a new connection, made by either side."""
        with self._lock:
            self._connections.append(connection)
            members = list(self._members.values())
        for member in members:
            if connection.peer in member.members:
                member.attach(connection)

    def landing(self, plan: int) -> MulticastMember | None:
        """See `Handler.landing`."""
        return self._landings.get(plan)

    def announced(self, connection: Connection, plan: int, held: bytes) -> None:
        """See `Handler.announced`."""
        with self._lock:
            member = self._members.get(plan)
            if member is None and plan in self._landings:
                return
            if member is None:
                early = self._early.setdefault(plan, {})
                early[connection.peer] = _Early(connection, held)
                if len(self._early) > EARLY_PLANS_MAX:
                    del self._early[next(iter(self._early))]
        if member is not None:
            member.announced(connection, held)

    def asked(self, connection: Connection, plan: int, chunk: int) -> None:
        """See `Handler.asked`."""
        with self._lock:
            member = self._members.get(plan)
            early = self._early.get(plan, {}).get(connection.peer)
            if member is None and early is not None:
                early.asked.append(chunk)
        if member is not None:
            member.asked(connection, chunk)

    def lost(self, connection: Connection) -> None:
        """The connection is gone; also to be told of those that this side closes."""
        with self._lock:
            if connection in self._connections:
                self._connections.remove(connection)
            for early in self._early.values():
                early.pop(connection.peer, None)
            members = list(self._members.values())
        for member in members:
            member.lost(connection)
