"""KV of the sequences that come to a head from other replicas: moved or not. Pure."""

import dataclasses

import msgspec

from jscale.core.ids import SequenceId, WorkerId
from jscale.core.units import NS_PER_S
from jscale.engine.config import EngineConfig
from jscale.engine.scheduler import Scheduler
from jscale.engine.sequence import Sequence
from jscale.pipeline.messages import (
    KvTicket,
    MoveEnded,
    MoveKv,
    PipelineSpec,
    StageSpec,
)
from jscale.pipeline.rates import LinkRate, PrefillRate
from jscale.plan.execution import ExecutionPipeline, Stage
from jscale.plan.handover import (
    SETUP_NS,
    HandOverCosts,
    busiest_link_share,
    kv_is_moved,
)

SILENCE_NS = 15 * NS_PER_S
"""A stage that has not said for so long how a move ended does not work: longer than a
stage takes for any move."""


@dataclasses.dataclass
class _Move:
    """A sequence whose KV is on its way, and the workers that have not all of it."""

    sequence: Sequence
    ticket: KvTicket
    link_bytes: float
    missing: set[WorkerId]
    deadline_ns: int
    size_bytes: int = 0
    took_ns: int = 0
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Arrival:
    """How a sequence's KV came here; `reason` says why it did not."""

    sequence: Sequence
    num_tokens: int
    size_bytes: int
    took_ns: int
    reason: str


class KvArrivals:
    """Decides for each sequence that was handed over, and waits for what is moved.

    Pages of a sequence whose KV is moved stay its own until every worker said that it
    writes no more, even if one failed or nobody wants the sequence any longer.
    """

    def __init__(
        self,
        spec: PipelineSpec,
        config: EngineConfig,
        *,
        kv_bytes_per_token: float,
        link: LinkRate,
    ) -> None:
        """For the head of a replica.

        Args:
          spec: the replica.
          config: of the engine.
          kv_bytes_per_token: over all blocks.
          link: what this worker knows of links.
        """
        self._spec = spec
        self._config = config
        self._kv_bytes_per_token = kv_bytes_per_token
        self._link = link
        self._tickets: dict[SequenceId, KvTicket] = {}
        self._moves: dict[int, _Move] = {}
        self._next_move = 0
        self.prefill = PrefillRate()

    @property
    def deadline_ns(self) -> int | None:
        """When a stage that says nothing is given up; None: all have said all."""
        return min((move.deadline_ns for move in self._moves.values()), default=None)

    def expect(self, sequence: Sequence, ticket: KvTicket | None) -> None:
        """A sequence was submitted that may have its KV elsewhere."""
        if ticket is None or self._config.moves_kv == "never":
            return
        # At least one token must be computed here for the next to be sampled.
        num_tokens = min(ticket.num_tokens, len(sequence.token_ids) - 1)
        if num_tokens > 0 and _covers(ticket.stages, self._spec.stages):
            sequence.num_movable = num_tokens
            self._tickets[sequence.id] = ticket

    def take_over(self, older: "KvArrivals") -> None:
        """Goes on with the sequences of another head of which nothing is on its way."""
        assert not older._moves, older._moves
        self._tickets |= older._tickets
        self.prefill = older.prefill

    def forget(self, sequence: SequenceId) -> None:
        """Nobody wants it any more."""
        self._tickets.pop(sequence, None)

    def next_move(self, scheduler: Scheduler, now_ns: int) -> MoveKv | None:
        """What every worker of the replica is to be told, if KV is to be moved now."""
        while (sequence := scheduler.movable()) is not None:
            ticket = self._tickets.pop(sequence.id)
            share = busiest_link_share(_cut(ticket.stages), _cut(self._spec.stages))
            per_token = share * self._kv_bytes_per_token
            if not self._is_worth_it(sequence, ticket, per_token, scheduler, now_ns):
                sequence.num_movable = 0
                continue
            scheduler.start_move(sequence)
            self._next_move += 1
            self._moves[self._next_move] = _Move(
                sequence,
                ticket,
                per_token * sequence.num_movable,
                set(self._spec.workers),
                now_ns + SILENCE_NS,
            )
            num_pages = self._config.pages_for(sequence.num_movable)
            return MoveKv(
                pipeline=self._spec.pipeline,
                move=self._next_move,
                ticket=msgspec.structs.replace(ticket, pages=ticket.pages[:num_pages]),
                pages=tuple(sequence.pages[:num_pages]),
            )
        return None

    def ended(
        self, message: MoveEnded, scheduler: Scheduler, now_ns: int
    ) -> Arrival | None:
        """One worker has its part, or not; the arrival once all have said so."""
        move = self._moves.get(message.move)
        if move is None or message.worker not in move.missing:
            return None
        move.missing.discard(message.worker)
        move.reason = move.reason or message.reason
        move.size_bytes += message.size_bytes
        move.took_ns = max(move.took_ns, message.took_ns)
        if not message.reason:
            self._link.seen(message.size_bytes, message.took_ns, now_ns)
        if move.missing:
            return None
        del self._moves[message.move]
        num_tokens = 0 if move.reason else move.sequence.num_movable
        scheduler.end_move(move.sequence, num_tokens)
        return Arrival(
            move.sequence, num_tokens, move.size_bytes, move.took_ns, move.reason
        )

    def ticket_of(self, sequence: Sequence) -> KvTicket | None:
        """Where the KV of an evacuated sequence is now: here, or still elsewhere."""
        num_pages = self._config.pages_for(sequence.num_kept)
        if num_pages:
            return KvTicket(
                pipeline=self._spec.pipeline,
                stages=self._spec.stages,
                pages=tuple(sequence.pages[:num_pages]),
                num_tokens=sequence.num_kept,
                prefill_tokens_per_s=self.prefill.tokens_per_s,
                step_ns=self.prefill.step_ns,
            )
        for move in self._moves.values():
            if move.sequence is sequence:
                return move.ticket
        return self._tickets.get(sequence.id)

    def _is_worth_it(
        self,
        sequence: Sequence,
        ticket: KvTicket,
        per_token: float,
        scheduler: Scheduler,
        now_ns: int,
    ) -> bool:
        if self._config.moves_kv == "always":
            return True
        rate = self.prefill.tokens_per_s or ticket.prefill_tokens_per_s
        if not rate:
            return False
        num_pages = self._config.pages_for(sequence.num_movable)
        whole_pages = num_pages * self._config.page_tokens
        costs = HandOverCosts(
            kv_bytes_per_token=per_token * whole_pages / sequence.num_movable,
            link_bytes_per_s=self._link.bytes_per_s(now_ns),
            prefill_tokens_per_s=rate,
            queued_bytes=sum(move.link_bytes for move in self._moves.values()),
            queued_tokens=scheduler.num_uncomputed,
            # What asks for KV and what brings it wait for a step to end, on each side.
            setup_ns=SETUP_NS + self.prefill.step_ns + ticket.step_ns,
        )
        return kv_is_moved(sequence.num_movable, costs=costs)


def _covers(older: tuple[StageSpec, ...], newer: tuple[StageSpec, ...]) -> bool:
    """Whether both run the same model, each block once and in order."""
    blocks = [
        [block for stage in cut for block in stage.blocks] for cut in (older, newer)
    ]
    return blocks[0] == blocks[1]


def _cut(stages: tuple[StageSpec, ...]) -> ExecutionPipeline:
    """The stages without addresses."""
    return ExecutionPipeline(
        tuple(
            Stage(stage.worker, stage.first_block, stage.num_blocks) for stage in stages
        )
    )
