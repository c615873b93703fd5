"""How a multicast is arranged: what the manager says, and what members read in it."""

from collections.abc import Mapping, Sequence

from jscale.cluster.messages import JoinMulticast
from jscale.cluster.records import WorkerRecord
from jscale.cluster.roster import Roster
from jscale.core.ids import PlanId, WorkerId
from jscale.core.topology import Host, Nic, Topology
from jscale.plan.arrangement import multicast_over
from jscale.plan.binomial import BinomialPlan
from jscale.plan.kinds import PLAN_KINDS
from jscale.plan.multicast_plan import MulticastPlan
from jscale.plan.stragglers import StragglerWatch, with_rates
from jscale.plan.subgroups import SubgroupPlan, deal

SPARES_MAX = 2
"""Sources beside those that send: enough to ask when one of these is lost."""

TARGETS_MODELLED_MAX = 64
"""With more targets the links are taken to be alike: the cost model would take over a
second."""

BUSY_MAX = 0.9
"""A link that is used wholly is still shared: a newcomer gets some of it."""

CHUNKS_MODELLED = 256
"""About as many as a model has; the arrangement hardly depends on it."""


def arrange(
    plan: PlanId,
    roster: Roster,
    targets: Sequence[WorkerId],
    *,
    kind: str | None,
    watch: StragglerWatch | None = None,
) -> JoinMulticast:
    """The multicast that brings targets what they lack, from those that hold it all.

    All bring the same executables, as the numbers of chunks depend on them: those that
    most sources have. Sources that have others, or none, get them from one that has.
    Who reads blocks is a source if nobody holds them, or it reads faster than a link.

    Args:
      plan: its number.
      roster: there is at least one that can send, or reads.
      targets: at least one.
      kind: a key of `PLAN_KINDS`; None: what suits the links.
      watch: knows who was slow in the plan before.
    """
    by_bundle: dict[str, list[WorkerId]] = {}
    fast = [w for w in roster.feeding if w in roster.complete or roster[w].is_near_copy]
    for worker in (sources := fast or [*roster.feeding]):
        name = _bundle_name(roster[worker])
        by_bundle.setdefault(name, []).append(worker)
    bundle_name = max(by_bundle, key=lambda name: (name != "", len(by_bundle[name])))
    bundle = roster[by_bundle[bundle_name][0]].bundle
    holders = sorted(
        sources,
        key=lambda worker: (
            _bundle_name(roster[worker]) != bundle_name,
            worker not in roster.complete,
            roster[worker].outbound_busy,
        ),
    )[: len(targets) + SPARES_MAX]
    topology = _topology(roster, [*holders, *targets], watch)
    if topology is None or len(targets) > TARGETS_MODELLED_MAX:
        groups = deal(holders, targets)
        chosen = kind or BinomialPlan.kind
    else:
        arranged = multicast_over(
            topology, holders, targets, CHUNKS_MODELLED, kind=kind
        )
        plans = getattr(arranged, "subgroups", (arranged,))
        groups, chosen = tuple(each.members for each in plans), plans[0].kind
    sending = [group[0] for group in groups]
    spares = [worker for worker in holders if worker not in sending][:SPARES_MAX]
    return JoinMulticast(
        plan=plan,
        kind=chosen,
        groups=tuple(tuple(roster[w].member for w in group) for group in groups),
        spares=tuple(roster[worker].member for worker in spares),
        bundle=bundle,
        lacking=tuple(
            worker
            for worker in (*sending, *spares)
            if _bundle_name(roster[worker]) != bundle_name
        ),
    )


def plan_of(
    command: JoinMulticast, num_chunks: int, *, num_leading: int
) -> MulticastPlan:
    """The plan that all members of a multicast work out for themselves.

    Args:
      command: what the manager said.
      num_chunks: chunks of executables and blocks together.
      num_leading: chunks of the executables: everyone's first.

    Raises:
      ConfigError: the members, or their number, make no plan.
    """
    kind = PLAN_KINDS[command.kind]
    plans = tuple(
        kind(tuple(member.worker for member in group), num_chunks)
        for group in command.groups
    )
    if len(command.sources) == 1:
        return plans[0]
    members = tuple(member.worker for member in command.members)
    return SubgroupPlan(members, num_chunks, plans, num_leading, command.lacking)


def _bundle_name(record: WorkerRecord) -> str:
    return record.bundle.sha256 if record.bundle else ""


def _topology(
    workers: Mapping[WorkerId, WorkerRecord],
    members: Sequence[WorkerId],
    watch: StragglerWatch | None,
) -> Topology | None:
    """The links as told and as seen; None: all alike, as far as is known."""
    slow = watch.rates_bytes_per_s if watch is not None else {}
    records = [workers[member] for member in members]
    is_used = any(record.outbound_busy or record.inbound_busy for record in records)
    known = [record.link_bytes_per_s for record in records if record.link_bytes_per_s]
    hosts: dict[str, list[WorkerRecord]] = {}
    for record in records:
        hosts.setdefault(record.host or f"alone {record.worker}", []).append(record)
    is_alike = len(set(known)) <= 1 and len({record.leaf for record in records}) == 1
    if is_alike and not is_used and not slow and len(hosts) == len(records):
        return None
    # What nobody told is taken to be the fastest that somebody did.
    seen = watch.usual_bytes_per_s if watch is not None else 0.0
    usual = max(known, default=seen or 1e9)
    topology = Topology(
        tuple(
            Host(
                workers=tuple(record.worker for record in here),
                nics=(_nic(here, rate),),
                leaf=here[0].leaf,
            )
            for here in hosts.values()
            for rate in [max(r.link_bytes_per_s for r in here) or usual]
        )
    )
    return with_rates(topology, slow)


def _nic(records: Sequence[WorkerRecord], rate_bytes_per_s: float) -> Nic:
    """The link that these workers share, as busy as the last of them saw it."""
    return Nic(
        rate_bytes_per_s,
        rate_bytes_per_s,
        outbound_busy=min(BUSY_MAX, max(r.outbound_busy for r in records)),
        inbound_busy=min(BUSY_MAX, max(r.inbound_busy for r in records)),
    )
