"""Multicasts that suit the links: which sub-groups, in what order, of what kind."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

from jscale.core.errors import ConfigError
from jscale.core.ids import WorkerId
from jscale.core.topology import Host, Topology
from jscale.core.units import MIB
from jscale.plan.binomial import BinomialPlan
from jscale.plan.chain import ChainPlan
from jscale.plan.cost import HELD_NOTHING, Held, completion_times_ns
from jscale.plan.kinds import PLAN_KINDS
from jscale.plan.multicast_plan import MulticastPlan
from jscale.plan.sources import DEFAULT_SOURCE_POLICY, SourcePolicy, choose_sources
from jscale.plan.subgroups import SubgroupPlan

KINDS_TRIED = (BinomialPlan.kind, ChainPlan.kind)
TRANSFERS_TRIED_MAX = 1 << 12
"""Of each candidate, and then twice as many: 0.2 s. The rest is extrapolated."""

CHUNKS_TRIED_MAX = 32
"""And no more than so many chunks, and then twice as many, which show how much one more
adds, where nothing is held yet: of 120 random topologies with up to 19 members and 256
chunks the same choice as by trying all in 119 (the other: 0.4 % later), in 0.37 of the
time."""

Group = tuple[WorkerId, ...]
"""A source, then its targets in the order in which a chain passes them."""


def multicast_over(
    topology: Topology,
    sources: Sequence[WorkerId],
    targets: Sequence[WorkerId],
    num_chunks: int,
    *,
    kind: str | None = None,
    num_leading: int = 0,
    policy: SourcePolicy = DEFAULT_SOURCE_POLICY,
    held: Held = HELD_NOTHING,
) -> MulticastPlan:
    """The plan whose targets are complete soonest, on average, by the cost model.

    One decides, and tells the members what came of it: their own parts then follow from
    the plan as always. The candidates: sub-groups as even as can be, or of hosts near
    to their source; binomial, or chains. Fast hosts come before slow ones, then hosts
    of the source's leaf switch before others, leaf by leaf, and workers of a host one
    after the other: a chain crosses each boundary once and is slow only at its end.
    Among equals the given order is kept.

    Source: BlitzScale (arXiv 2412.17246) plans chains in decreasing order of bandwidth,
    inside a leaf switch where possible, with the workers of an NVLink domain merged.
    Here the cost model has the last word.

    Args:
      topology: the links.
      sources: who holds every chunk. Those that `choose_sources` leaves out stand by.
      targets: who is to get them.
      num_chunks: how many chunks there are.
      kind: a key of `PLAN_KINDS`; None: the faster one of binomial and chain.
      num_leading: chunks that go first in every sub-group, as in `multicast`.
      policy: who is good enough to send.
      held: what targets hold already, and will not be sent.

    Raises:
      ConfigError: as `multicast` does; the topology lacks a member.
    """
    if not targets:
        raise ConfigError("multicast to no target: name at least one")
    if kind is not None and kind not in PLAN_KINDS:
        known = ", ".join(sorted(PLAN_KINDS))
        raise ConfigError(f"multicast kind {kind!r} is unknown: choose one of {known}")
    senders = choose_sources(sources, topology, policy=policy)
    candidates = [
        _Arrangement(tuple(sources), groups, chosen, num_leading)
        for groups in dict.fromkeys(_groupings(senders, targets, topology))
        for chosen in (_kinds(groups) if kind is None else (kind,))
    ]
    if len(candidates) == 1:
        return candidates[0].plan(num_chunks)
    best = min(candidates, key=lambda each: each.time_ns(topology, num_chunks, held))
    return best.plan(num_chunks)


@dataclasses.dataclass(frozen=True)
class _Arrangement:
    """A candidate: all but the number of chunks."""

    sources: tuple[WorkerId, ...]
    groups: tuple[Group, ...]
    kind: str
    num_leading: int

    def plan(self, num_chunks: int) -> MulticastPlan:
        """The plan for so many chunks."""
        plans = tuple(PLAN_KINDS[self.kind](group, num_chunks) for group in self.groups)
        if len(self.sources) == 1:
            return plans[0]
        senders = [group[0] for group in self.groups]
        spares = [source for source in self.sources if source not in senders]
        targets = [target for group in self.groups for target in group[1:]]
        members = (*senders, *spares, *targets)
        return SubgroupPlan(members, num_chunks, plans, self.num_leading)

    def time_ns(self, topology: Topology, num_chunks: int, held: Held) -> float:
        """When targets are complete, their mean; for many chunks, about."""
        num_targets = sum(len(group) - 1 for group in self.groups)
        tried = TRANSFERS_TRIED_MAX // num_targets
        if not held:
            tried = min(tried, CHUNKS_TRIED_MAX)
        tried = max(4, self.num_leading, tried)
        if num_chunks <= 2 * tried:
            return self._exact_ns(topology, num_chunks, held)
        once, twice = (
            self._exact_ns(topology, n, _thinned(held, num_chunks, n))
            for n in (tried, 2 * tried)
        )
        return twice + (num_chunks - 2 * tried) * (twice - once) / tried

    def _exact_ns(self, topology: Topology, num_chunks: int, held: Held) -> float:
        plan = self.plan(num_chunks)
        times_ns = completion_times_ns(plan, topology, MIB, held=held)
        return sum(times_ns.values()) / len(times_ns)


def _kinds(groups: Sequence[Group]) -> Sequence[str]:
    """Those to try: to a single target all of them are the same."""
    return KINDS_TRIED if any(len(group) > 2 for group in groups) else KINDS_TRIED[:1]


def _thinned(held: Held, num_chunks: int, num_kept: int) -> Held:
    """What is held of so many chunks, evenly spread, that stand for all."""
    if not held:
        return held
    kept = [n * num_chunks // num_kept for n in range(num_kept)]
    return {
        target: {n for n, chunk in enumerate(kept) if chunk in chunks}
        for target, chunks in held.items()
    }


def _groupings(
    senders: Sequence[WorkerId], targets: Sequence[WorkerId], topology: Topology
) -> Iterator[tuple[Group, ...]]:
    """Ways to share targets out; those of one host stay together.

    A sender without targets has no group.
    """
    by_host: dict[tuple[WorkerId, ...], list[WorkerId]] = {}
    for target in targets:
        by_host.setdefault(topology.host_of(target).workers, []).append(target)
    units = sorted(by_host.values(), key=len, reverse=True)
    ways = (_even,) if len(senders) == 1 else (_even, _near)
    for way in ways:
        shares = way(senders, units, topology)
        yield tuple(
            (sender, *_in_order(sender, share, topology))
            for sender, share in zip(senders, shares, strict=True)
            if share
        )


def _even(
    senders: Sequence[WorkerId],
    units: Sequence[Sequence[WorkerId]],
    topology: Topology,
) -> list[list[WorkerId]]:
    """Each host to the sender with the fewest targets."""
    del topology
    shares: list[list[WorkerId]] = [[] for _ in senders]
    for unit in units:
        min(shares, key=len).extend(unit)
    return shares


def _near(
    senders: Sequence[WorkerId],
    units: Sequence[Sequence[WorkerId]],
    topology: Topology,
) -> list[list[WorkerId]]:
    """Each host to a sender on it or under its leaf; other leaves go as wholes."""
    shares: list[list[WorkerId]] = [[] for _ in senders]
    by_leaf: dict[str, list[WorkerId]] = {}
    for unit in units:
        host = topology.host_of(unit[0])
        hosts = [topology.host_of(sender) for sender in senders]
        near = [s for s, h in zip(shares, hosts, strict=True) if h is host] or [
            s for s, h in zip(shares, hosts, strict=True) if h.leaf == host.leaf
        ]
        if near:
            min(near, key=len).extend(unit)
        else:
            by_leaf.setdefault(host.leaf, []).extend(unit)
    for leaf_targets in sorted(by_leaf.values(), key=len, reverse=True):
        min(shares, key=len).extend(leaf_targets)
    return shares


def _in_order(
    sender: WorkerId, targets: Sequence[WorkerId], topology: Topology
) -> list[WorkerId]:
    """Fast before slow, near before far, neighbours together.

    Hosts count as equally fast up to a factor of two, so that a little more bandwidth
    does not tear leaves apart.
    """
    home = topology.host_of(sender)
    best = max(_rate(topology.host_of(target)) for target in targets)
    leaves = {
        leaf: n for n, leaf in enumerate(dict.fromkeys(h.leaf for h in topology.hosts))
    }
    number: dict[tuple[WorkerId, ...], int] = {}
    for target in targets:
        number.setdefault(topology.host_of(target).workers, len(number))

    def key(target: WorkerId) -> tuple[bool, int, bool, int, float, int]:
        host = topology.host_of(target)
        slowness = int(math.log2(best / _rate(host)))
        return (
            host is not home,
            slowness,
            host.leaf != home.leaf,
            leaves[host.leaf],
            -_rate(host),
            number[host.workers],
        )

    return sorted(targets, key=key)


def _rate(host: Host) -> float:
    """What a host can pass on of what it receives."""
    return min(host.free_outbound_bytes_per_s, host.free_inbound_bytes_per_s)
