"""The manager's multicast: who takes part, and when it is arranged anew.

One multicast serves every worker that lacks blocks, from those that hold them all, or
from one that reads them: it sends on what it has.
Whatever changes (a member is lost, a source is lost or leaves, a worker comes late,
a member turns out to be slow) ends in the same act: another plan for those who are
there now. Members keep what they have, and are not sent it again.
"""

from collections.abc import Callable

import msgspec

from jscale.cluster.arrangement import TARGETS_MODELLED_MAX, arrange, plan_of
from jscale.cluster.effects import Effect, TellWorker
from jscale.cluster.messages import CancelMulticast, JoinMulticast, ModelSpec
from jscale.cluster.records import TransferRecord
from jscale.cluster.roster import Roster
from jscale.core.chunks import ChunkTable
from jscale.core.ids import PlanId, WorkerId
from jscale.core.units import NS_PER_S
from jscale.plan.chain import ChainPlan
from jscale.plan.stragglers import StragglerWatch

RETRY_NS = 500_000_000
"""How long a worker whose transfer failed waits for the next try."""

GRACE_NS = 3_000_000_000
"""How long a target waits for others that were started with it, so that one multicast
serves them all: process start differs by about a second on a busy machine."""

REJOIN_NS = 500_000_000
"""A worker that comes late waits until the plan is so old: those that come one after
the other then join together."""

REJOIN_SHARE = 0.125
"""But no longer than this share of what the model takes on a link, where that is known:
a late worker that waited for half a second would miss the whole of a fast multicast."""

REJOIN_NS_PER_WORKER = 200_000
"""And so long for every worker of the plan, as a plan costs more the more there are."""

LATE_IN_CHAINS_MAX = 64
"""Of so many targets, those that came late stand at the end of chains. In a binomial
plan the others wait for what a late one is to pass on, which it gets last: they are
complete when it is (1.75 × as late where it came half-way). Chains of more take longer
to fill."""


class MulticastBook:
    """Owns the record of the multicast. Part of a `ManagerState`, pure like it."""

    def __init__(
        self,
        roster: Roster,
        emit: Callable[[Effect], None],
        spec: ModelSpec,
        *,
        kind: str | None,
        first_id: int = 0,
    ) -> None:
        """No multicast; plans are numbered from after `first_id`."""
        self._roster = roster
        self._spec = spec
        self._emit = emit
        self._kind = kind
        self._next = first_id + 1
        self._transfer: TransferRecord | None = None
        self._late: list[WorkerId] = []
        self._is_broken = False
        self._watch: StragglerWatch | None = None

    @property
    def transfer(self) -> TransferRecord | None:
        """What is under way."""
        return self._transfer

    def involves(self, worker: WorkerId) -> bool:
        """Whether it sends or is sent something."""
        return self._transfer is not None and worker in self._transfer.members

    def is_source(self, worker: WorkerId) -> bool:
        """Whether others wait for what it sends."""
        return self._transfer is not None and worker in self._transfer.sources

    def lost(self, worker: WorkerId) -> None:
        """A worker is not there any more, or must not take part."""
        transfer = self._transfer
        if transfer is None or worker not in transfer.members:
            return
        if worker in self._roster:
            self._release(worker)
        self._transfer = msgspec.structs.replace(
            transfer,
            sources=transfer.sources - {worker},
            pending=transfer.pending - {worker},
        )
        self._is_broken = True

    def progressed(
        self, worker: WorkerId, plan: PlanId, held_bytes: int, now_ns: int
    ) -> None:
        """A member holds so much now; whoever is found slow is sent the rest last."""
        transfer = self._transfer
        if transfer is None or plan != transfer.plan or self._watch is None:
            return
        if self._watch.reported(worker, held_bytes, now_ns):
            self._is_broken = True

    def ended(
        self, worker: WorkerId, plan: PlanId, missing_chunks: int, now_ns: int
    ) -> None:
        """A member's part is over; what an older plan says is not asked any more."""
        transfer = self._transfer
        if transfer is None or plan != transfer.plan or worker not in transfer.pending:
            return
        if missing_chunks:
            self._roster.update(worker, retry_after_ns=now_ns + RETRY_NS)
        self._release(worker)
        self._transfer = msgspec.structs.replace(
            transfer, pending=transfer.pending - {worker}
        )

    def reconcile(self, now_ns: int, *, num_launching: int) -> None:
        """Starts, arranges anew or ends the multicast, as things are now.

        O(1) unless it does.
        """
        transfer = self._transfer
        if transfer is not None and not transfer.pending:
            self._end()
            transfer = None
        joiners = self._joiners(now_ns, num_launching)
        if transfer is None:
            self._late = []
            if joiners:
                self._start(joiners, now_ns)
            return
        can_send = not transfer.sources.isdisjoint(self._roster.feeding)
        is_outdone = bool(self._roster.senders) and not can_send
        if not (joiners or self._is_broken or is_outdone):
            return
        # Whoever has all blocks and lacks executables could send: it is no target too.
        targets = [w for w in transfer.pending if w not in self._roster.complete]
        if self._roster.feeding and (targets or joiners):
            self._late = [w for w in self._late if w in targets] + joiners
            on_time = sorted(set(targets).difference(self._late))
            self._start([*on_time, *self._late], now_ns)
        elif self._is_broken or not transfer.sources:
            self._end()

    def _joiners(self, now_ns: int, num_launching: int) -> list[WorkerId]:
        """Those that wait and are to wait no longer."""
        waiting = self._roster.waiting
        if not waiting or not self._roster.feeding:
            return []
        transfer = self._transfer
        pause_ns = self._rejoin_ns(transfer) if transfer is not None else 0
        if transfer is not None and now_ns < transfer.started_ns + pause_ns:
            return []
        oldest_ns = self._roster[next(iter(waiting))].attached_ns
        if num_launching and now_ns - oldest_ns < GRACE_NS:
            return []
        roster = self._roster
        return [w for w in waiting if roster[w].retry_after_ns <= now_ns]

    def _rejoin_ns(self, transfer: TransferRecord) -> int:
        """How old the plan must be before others may join."""
        roster = self._roster
        found = (roster[w].link_bytes_per_s for w in transfer.sources if w in roster)
        known = [rate for rate in found if rate]
        pause_ns = REJOIN_NS
        if known:
            load_ns = sum(self._spec.block_sizes_bytes) * NS_PER_S / min(known)
            pause_ns = min(pause_ns, round(REJOIN_SHARE * load_ns))
        return max(pause_ns, REJOIN_NS_PER_WORKER * len(roster))

    def _start(self, targets: list[WorkerId], now_ns: int) -> None:
        """Has everyone join a new plan, and leaves behind who is no part of it."""
        plan = PlanId(self._next)
        self._next += 1
        kind = self._kind
        if 0 < len(self._late) < len(targets) <= LATE_IN_CHAINS_MAX:
            kind = kind or ChainPlan.kind
        command = arrange(plan, self._roster, targets, kind=kind, watch=self._watch)
        self._watch_over(command, now_ns)
        members = {member.worker for member in command.members}
        if self._transfer is not None:
            self._cancel(self._transfer.members - members)
        for member in command.members:
            self._emit(TellWorker(member.worker, command))
        pending = frozenset(member.worker for member in command.targets)
        if self._transfer is not None:
            for source in sorted((self._transfer.pending & members) - pending):
                self._release(source)
        for target in pending:
            self._roster.update(target, plan=plan)
        sources = frozenset(member.worker for member in command.sources)
        self._transfer = TransferRecord(plan, sources, pending, now_ns)
        self._is_broken = False

    def _end(self) -> None:
        """Nobody is left to send, or to be sent anything."""
        assert self._transfer is not None
        if self._is_broken or self._transfer.pending:
            self._cancel(self._transfer.members)
        self._transfer = None
        self._watch = None
        self._is_broken = False

    def _watch_over(self, command: JoinMulticast, now_ns: int) -> None:
        """Looks out for slow members, where there are others to suffer from them."""
        if not 2 <= len(command.targets) <= TARGETS_MODELLED_MAX:
            self._watch = None
            return
        bundle_bytes = command.bundle.size_bytes if command.bundle else 0
        sizes_bytes = (bundle_bytes, *self._spec.block_sizes_bytes)
        chunks = ChunkTable(sizes_bytes, self._spec.chunk_size_bytes)
        num_leading = len(chunks.chunks_of(0))
        plan = plan_of(command, chunks.num_chunks, num_leading=num_leading)
        if self._watch is None:
            self._watch = StragglerWatch(plan, sum(sizes_bytes), now_ns)
        else:
            self._watch.follow(plan, now_ns)

    def _cancel(self, workers: frozenset[WorkerId]) -> None:
        assert self._transfer is not None
        for worker in sorted(workers):
            if worker in self._roster:
                command = CancelMulticast(self._transfer.plan)
                self._emit(TellWorker(worker, command))
                self._release(worker)

    def _release(self, worker: WorkerId) -> None:
        self._roster.update(worker, plan=None, bytes_per_s=0.0)
