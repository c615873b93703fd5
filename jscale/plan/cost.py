"""What a multicast costs: when each chunk arrives where, over links as they are."""

import dataclasses
import heapq
import itertools
import math
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import NamedTuple

from jscale.core.ids import ChunkIndex, WorkerId
from jscale.core.topology import Topology
from jscale.core.units import NS_PER_S
from jscale.plan.lanes import Lanes, local_lanes, nic_lanes
from jscale.plan.multicast_plan import MulticastPlan


@dataclasses.dataclass(frozen=True, order=True)
class Arrival:
    """A chunk is wholly at a target, `time_ns` after the multicast began."""

    time_ns: int
    target: WorkerId
    chunk: ChunkIndex


Held = Mapping[WorkerId, AbstractSet[int]]
"""Chunks that targets hold before a multicast begins; who is not named holds none."""

HELD_NOTHING: Held = MappingProxyType({})


def completion_times_ns(
    plan: MulticastPlan,
    topology: Topology,
    chunk_size_bytes: int,
    *,
    held: Held = HELD_NOTHING,
) -> Mapping[WorkerId, int]:
    """When each target holds every chunk, in nanoseconds from the start.

    Raises:
      ConfigError: the topology lacks a member.
    """
    times_ns = dict.fromkeys(plan.targets, 0)
    for arrival in arrivals(plan, topology, chunk_size_bytes, held=held):
        times_ns[arrival.target] = arrival.time_ns
    return times_ns


def coverage_time_ns(
    plan: MulticastPlan,
    topology: Topology,
    chunk_size_bytes: int,
    *,
    held: Held = HELD_NOTHING,
) -> int:
    """When all targets *together* hold every chunk, in nanoseconds from the start.

    Raises:
      ConfigError: the topology lacks a member.
    """
    missing = set(range(plan.num_chunks))
    missing.difference_update(*(held.get(target, ()) for target in plan.targets))
    if not missing:
        return 0
    for arrival in arrivals(plan, topology, chunk_size_bytes, held=held):
        missing.discard(arrival.chunk)
        if not missing:
            return arrival.time_ns
    raise AssertionError(f"a plan that does not deliver chunks {sorted(missing)}")


def arrivals(
    plan: MulticastPlan,
    topology: Topology,
    chunk_size_bytes: int,
    *,
    held: Held = HELD_NOTHING,
) -> Iterator[Arrival]:
    """Every chunk at every target, in order of time; of all chunks the same size.

    Members go by the steps of the plan as far as they can: no barrier, no common clock.
    A worker has a lane a NIC out of its host and one in, which it shares with the other
    workers there; and a lane out and one in for those. A send starts as soon as its
    chunk is held and a lane is free at both ends, the earlier step before the later. It
    goes at the rate of the slower lane, and where it leaves its leaf switch, it also
    waits its turn at both leaves' links to the others. It arrives a latency for every
    cable later. What a target holds from the start is not sent to it.

    As real members do: of 256 chunks on emulated links, 12 members of a binomial plan
    took 1.013 × size / rate, and 1.012 by this model. (A sender that waits with its
    lane for a busy target would make it 1.40.)

    O(log N) for each transfer of a binomial plan; linear in the members of any but a
    flat one.

    Raises:
      ConfigError: the topology lacks a member.
    """
    return _Run(plan, topology, chunk_size_bytes, held).arrivals()


class _Send(NamedTuple):
    """A transfer, in the order in which they go first; compared millions of times."""

    step: int
    source: int
    target: int
    chunk: int


@dataclasses.dataclass(frozen=True)
class _Route:
    """Lanes that sends share: out of one place and into another."""

    out: Lanes
    into: Lanes
    waiting: list[_Send] = dataclasses.field(default_factory=list)

    @property
    def can_start(self) -> bool:
        """Whether the first that waits has a lane at both ends."""
        return bool(self.waiting) and self.out.has_free and self.into.has_free


@dataclasses.dataclass(frozen=True)
class _Flight:
    """A send on its way, and the rates of its lanes."""

    send: _Send
    route: _Route
    out_rate: float
    in_rate: float


class _Run:
    """One multicast on its way through the lanes; belongs to one call of `arrivals`."""

    def __init__(
        self,
        plan: MulticastPlan,
        topology: Topology,
        chunk_size_bytes: int,
        held: Held,
    ) -> None:
        assert chunk_size_bytes > 0, chunk_size_bytes
        self._plan = plan
        self._held = held
        self._topology = topology
        self._size_bytes = chunk_size_bytes
        self._hosts = [topology.host_of(member) for member in plan.members]
        by_host = {host.workers: nic_lanes(host) for host in self._hosts}
        self._nics = [by_host[host.workers] for host in self._hosts]
        self._local = [local_lanes(host) for host in self._hosts]
        self._routes: dict[tuple[Lanes, Lanes], _Route] = {}
        self._routes_at: dict[Lanes, list[_Route]] = {}
        self._by_chunk: dict[tuple[int, int], list[_Send]] = {}
        self._leaf_free_ns: dict[tuple[str, str], int] = {}
        # When; a number that breaks ties; whether its chunk is there then, or its lanes
        # become free; what.
        self._events: list[tuple[int, int, bool, _Flight]] = []
        self._ties = itertools.count()

    def arrivals(self) -> Iterator[Arrival]:
        """All that happens, in order of time; what is at one time happens at once."""
        self._let_go(0, self._load_plan())
        while self._events:
            now_ns = self._events[0][0]
            changed: list[_Route] = []
            while self._events and self._events[0][0] == now_ns:
                _, _, is_there, flight = heapq.heappop(self._events)
                if is_there:
                    target, chunk = flight.send.target, flight.send.chunk
                    yield Arrival(now_ns, self._plan.members[target], ChunkIndex(chunk))
                    sends = self._by_chunk.pop((target, chunk), ())
                    changed += [self._add(send) for send in sends]
                else:
                    changed += self._end(flight)
            self._let_go(now_ns, changed)

    def _load_plan(self) -> list[_Route]:
        """Has sends of what is held wait for lanes, and others for their chunks."""
        plan, changed = self._plan, []
        num_sources = len(plan.sources)
        held = [self._held.get(member, frozenset()) for member in plan.members]
        for target in range(num_sources, plan.num_members):
            for step, source, chunk in plan.receives_of(target):
                if chunk in held[target]:
                    continue
                send = _Send(step, source, target, chunk)
                if source < num_sources or chunk in held[source]:
                    changed.append(self._add(send))
                else:
                    self._by_chunk.setdefault((source, chunk), []).append(send)
        return changed

    def _add(self, send: _Send) -> _Route:
        """Has a send wait for its lanes."""
        is_local = self._hosts[send.source] is self._hosts[send.target]
        lanes = self._local if is_local else self._nics
        out, into = lanes[send.source][0], lanes[send.target][1]
        route = self._routes.get((out, into))
        if route is None:
            route = self._routes[out, into] = _Route(out, into)
            self._routes_at.setdefault(out, []).append(route)
            self._routes_at.setdefault(into, []).append(route)
        heapq.heappush(route.waiting, send)
        return route

    def _let_go(self, now_ns: int, changed: list[_Route]) -> None:
        """Starts what can start, where something changed: earlier steps first."""
        first = [(r.waiting[0], n, r) for n, r in enumerate(changed) if r.can_start]
        heapq.heapify(first)
        while first:
            send, number, route = heapq.heappop(first)
            if not route.can_start:
                continue
            if route.waiting[0] == send:
                heapq.heappop(route.waiting)
                self._start(now_ns, send, route)
            if route.can_start:
                heapq.heappush(first, (route.waiting[0], number, route))

    def _start(self, now_ns: int, send: _Send, route: _Route) -> None:
        """Books the links that a send passes."""
        flight = _Flight(send, route, route.out.take(), route.into.take())
        end_ns = now_ns + self._duration_ns(min(flight.out_rate, flight.in_rate))
        leaf, other = self._hosts[send.source].leaf, self._hosts[send.target].leaf
        if leaf != other:
            end_ns = max((end_ns, *self._book_leaves(now_ns, leaf, other)))
        members = self._plan.members
        num_hops = self._topology.num_hops(members[send.source], members[send.target])
        there_ns = end_ns + num_hops * self._topology.hop_latency_ns
        heapq.heappush(self._events, (end_ns, next(self._ties), False, flight))
        heapq.heappush(self._events, (there_ns, next(self._ties), True, flight))

    def _end(self, flight: _Flight) -> list[_Route]:
        """Frees the lanes of a send; where others may want them."""
        route = flight.route
        route.out.give_back(flight.out_rate)
        route.into.give_back(flight.in_rate)
        return self._routes_at[route.out] + self._routes_at[route.into]

    def _book_leaves(self, now_ns: int, source: str, target: str) -> Iterator[int]:
        """When each link between leaves has carried the chunk, in its turn."""
        for name, direction in ((source, "up"), (target, "down")):
            leaf = self._topology.leaf_named(name)
            if leaf is not None:
                is_up = direction == "up"
                rate = leaf.up_bytes_per_s if is_up else leaf.down_bytes_per_s
                free_ns = max(now_ns, self._leaf_free_ns.get((name, direction), 0))
                self._leaf_free_ns[name, direction] = free_ns + self._duration_ns(rate)
                yield self._leaf_free_ns[name, direction]

    def _duration_ns(self, bytes_per_s: float) -> int:
        return math.ceil(self._size_bytes * NS_PER_S / bytes_per_s)
