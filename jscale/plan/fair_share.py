"""Several multicasts at once over the same links: what each leaves, what each takes."""

import dataclasses
import heapq
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from jscale.core.ids import WorkerId
from jscale.core.topology import Host, Topology
from jscale.core.units import NS_PER_S
from jscale.plan.multicast_plan import MulticastPlan

ROUNDING_NS = 1e-3
"""What sums of floats may be over."""


def links_left(topology: Topology, under_way: Sequence[MulticastPlan]) -> Topology:
    """The links as one more multicast finds them: with a fair share of each.

    Where n multicasts send from a host, or receive there, one more gets 1 / (n + 1) of
    what serving leaves of that direction. `multicast_over` on these links takes sources
    that send nothing yet, as long as there are any, puts hosts that receive another
    model behind the others, and so leaves alone whom it can.

    Raises:
      ConfigError: the topology lacks a member.
    """
    num_out: dict[tuple[WorkerId, ...], int] = {}
    num_in: dict[tuple[WorkerId, ...], int] = {}
    for plan in under_way:
        hosts = [topology.host_of(member) for member in plan.members]
        senders = {
            host.workers
            for index, host in enumerate(hosts)
            if next(plan.sends_of(index), None)
        }
        for workers in senders:
            num_out[workers] = num_out.get(workers, 0) + 1
        for workers in {host.workers for host in hosts[len(plan.sources) :]}:
            num_in[workers] = num_in.get(workers, 0) + 1
    return dataclasses.replace(
        topology,
        hosts=tuple(
            _shared(host, num_out.get(host.workers, 0), num_in.get(host.workers, 0))
            for host in topology.hosts
        ),
    )


def _shared(host: Host, num_out: int, num_in: int) -> Host:
    """A host whose NICs so many multicasts use already."""
    nics = tuple(
        dataclasses.replace(
            nic,
            outbound_busy=1 - (1 - nic.outbound_busy) / (num_out + 1),
            inbound_busy=1 - (1 - nic.inbound_busy) / (num_in + 1),
        )
        for nic in host.nics
    )
    return dataclasses.replace(host, nics=nics)


def completion_times_together_ns(
    plans: Sequence[MulticastPlan],
    topology: Topology,
    chunk_sizes_bytes: Sequence[int],
    *,
    starts_ns: Sequence[int] | None = None,
) -> tuple[Mapping[WorkerId, int], ...]:
    """When each target of each plan holds every chunk, from its own plan's start.

    In each plan a host sends one chunk at a time and receives one. Chunks of several
    plans that cross a host's NICs in the same direction at the same time get equal
    shares, as TCP connections do, and none waits for another plan. NICs of a host count
    as one; links between leaves and latencies are left to `completion_times_ns`.

    Args:
      plans: at least one.
      topology: the links.
      chunk_sizes_bytes: of each plan.
      starts_ns: when each begins; all at 0 when not given.

    Raises:
      ConfigError: the topology lacks a member.
    """
    assert len(plans) == len(chunk_sizes_bytes)
    run = _Together(topology)
    starts_ns = starts_ns or [0] * len(plans)
    times_ns = [dict.fromkeys(plan.targets, 0) for plan in plans]
    for number, plan in enumerate(plans):
        run.add(number, plan, chunk_sizes_bytes[number], starts_ns[number])
    for now_ns, number, target in run.arrivals():
        times_ns[number][target] = now_ns - starts_ns[number]
    return tuple(times_ns)


@dataclasses.dataclass(eq=False)
class _Port:
    """One direction of a host's NICs, or of a worker to others on its host."""

    bytes_per_s: float
    flows: list["_Flow"] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(eq=False)
class _Route:
    """Sends of one plan from one port into another, that wait; heap by step."""

    number: int
    out: _Port
    into: _Port
    waiting: list[tuple[int, int, int, int]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(eq=False)
class _Flow:
    """A chunk on its way, at a rate that changes with its company."""

    route: _Route
    target: int
    chunk: int
    left_bytes: float
    rate: float = 0.0
    settled_ns: int = 0
    version: int = 0


class _Together:
    """Plans on their way; belongs to one call."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._ports: dict[tuple[WorkerId, ...], tuple[_Port, _Port]] = {}
        self._local: dict[WorkerId, tuple[_Port, _Port]] = {}
        self._plans: dict[int, tuple[MulticastPlan, int]] = {}
        self._routes: dict[tuple[int, _Port, _Port], _Route] = {}
        self._routes_at: dict[tuple[int, _Port], list[_Route]] = {}
        self._busy: set[tuple[int, _Port, bool]] = set()
        self._by_chunk: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
        self._ties = itertools.count()
        self._events: list[tuple[int, int, int, _Flow | int]] = []

    def add(
        self, number: int, plan: MulticastPlan, chunk_size_bytes: int, start_ns: int
    ) -> None:
        """A plan that begins then."""
        self._plans[number] = (plan, chunk_size_bytes)
        heapq.heappush(self._events, (start_ns, next(self._ties), 0, number))

    def arrivals(self) -> Iterator[tuple[int, int, WorkerId]]:
        """When, in which plan, a chunk is at which target."""
        while self._events:
            now_ns, changed = self._events[0][0], []
            while self._events and self._events[0][0] == now_ns:
                _, _, version, what = heapq.heappop(self._events)
                if isinstance(what, int):
                    changed += self._begin(what)
                elif what.version == version:
                    number = what.route.number
                    yield now_ns, number, self._plans[number][0].members[what.target]
                    changed += self._end(now_ns, what)
            self._let_go(now_ns, changed)

    def _begin(self, number: int) -> list[_Route]:
        plan, _ = self._plans[number]
        changed = []
        for target in range(len(plan.sources), plan.num_members):
            for step, source, chunk in plan.receives_of(target):
                if source < len(plan.sources):
                    changed.append(self._add(number, step, source, target, chunk))
                else:
                    key = number, source, chunk
                    self._by_chunk.setdefault(key, []).append((step, target))
        return changed

    def _add(
        self, number: int, step: int, source: int, target: int, chunk: int
    ) -> _Route:
        """Has a send wait for its ports."""
        out, into = self._ports_between(self._plans[number][0], source, target)
        route = self._routes.get((number, out, into))
        if route is None:
            route = self._routes[number, out, into] = _Route(number, out, into)
            self._routes_at.setdefault((number, out), []).append(route)
            self._routes_at.setdefault((number, into), []).append(route)
        heapq.heappush(route.waiting, (step, source, target, chunk))
        return route

    def _ports_between(
        self, plan: MulticastPlan, source: int, target: int
    ) -> tuple[_Port, _Port]:
        hosts = [self._topology.host_of(plan.members[i]) for i in (source, target)]
        if hosts[0] is hosts[1]:
            rate = hosts[0].local_rate_bytes_per_s
            out, into = (
                self._local.setdefault(plan.members[i], (_Port(rate), _Port(rate)))
                for i in (source, target)
            )
            return out[0], into[1]
        out, into = (
            self._ports.setdefault(
                host.workers,
                (
                    _Port(host.free_outbound_bytes_per_s),
                    _Port(host.free_inbound_bytes_per_s),
                ),
            )
            for host in hosts
        )
        return out[0], into[1]

    def _let_go(self, now_ns: int, changed: list[_Route]) -> None:
        """Starts what can start; earlier steps of a plan first."""
        for route in sorted(
            (each for each in changed if each.waiting), key=lambda e: e.waiting[0]
        ):
            ends = (route.number, route.out, True), (route.number, route.into, False)
            if route.waiting and not self._busy.intersection(ends):
                self._busy.update(ends)
                _, _, target, chunk = heapq.heappop(route.waiting)
                size_bytes = self._plans[route.number][1]
                flow = _Flow(route, target, chunk, size_bytes, settled_ns=now_ns)
                route.out.flows.append(flow)
                route.into.flows.append(flow)
                self._share(now_ns, route)

    def _end(self, now_ns: int, flow: _Flow) -> list[_Route]:
        """Frees the ports; where others may want them, or the chunk."""
        route = flow.route
        route.out.flows.remove(flow)
        route.into.flows.remove(flow)
        number = route.number
        self._busy -= {(number, route.out, True), (number, route.into, False)}
        self._share(now_ns, route)
        sends = self._by_chunk.pop((number, flow.target, flow.chunk), ())
        passed_on = [
            self._add(number, step, flow.target, target, flow.chunk)
            for step, target in sends
        ]
        at_ports = (self._routes_at[number, each] for each in (route.out, route.into))
        return [*passed_on, *itertools.chain.from_iterable(at_ports)]

    def _share(self, now_ns: int, route: _Route) -> None:
        """Gives those that cross the two ports their shares from now on."""
        for flow in {*route.out.flows, *route.into.flows}:
            flow.left_bytes -= (now_ns - flow.settled_ns) * flow.rate / NS_PER_S
            flow.settled_ns = now_ns
            flow.rate = min(
                port.bytes_per_s / len(port.flows)
                for port in (flow.route.out, flow.route.into)
            )
            flow.version += 1
            left_ns = max(0.0, flow.left_bytes) * NS_PER_S / flow.rate
            event = (
                now_ns + math.ceil(left_ns - ROUNDING_NS),
                next(self._ties),
                flow.version,
                flow,
            )
            heapq.heappush(self._events, event)
