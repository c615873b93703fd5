"""Which rows run next on a replica: continuous batching as a pure state machine."""

import dataclasses
from collections import deque
from collections.abc import Sequence as SequenceOf

from jscale.core.errors import OverloadedError, RequestError, TransportError
from jscale.core.ids import BatchId, SequenceId
from jscale.engine.batch import StepBatch
from jscale.engine.config import EngineConfig
from jscale.engine.pages import PagePool
from jscale.engine.sequence import CANCELLED, Sequence
from jscale.engine.span import Span, batch_of, take


@dataclasses.dataclass(frozen=True)
class ScheduledBatch:
    """A micro-batch and the number that `Scheduler.complete` wants back.

    A refill is for the first stage only; `Scheduler.refilled` wants its number back.
    """

    id: BatchId
    batch: StepBatch
    is_refill: bool = False


@dataclasses.dataclass(frozen=True)
class TokenSampled:
    """A sequence got a token; `index` counts its generated tokens from 0."""

    sequence: SequenceId
    index: int
    token: int
    logprob: float


@dataclasses.dataclass(frozen=True)
class SequenceFinished:
    """A sequence is complete: `stop`, `length` or `cancelled`."""

    sequence: SequenceId
    reason: str


class Scheduler:
    """Sequences that wait, sequences that run, and batches in flight.

    A batch takes one row from every sequence that decodes, up to `max_sequences`, and
    fills the largest bucket with chunks of prompts, oldest first. Up to `max_in_flight`
    batches are under way at once, a sequence being in at most one of them: as many
    batches as a pipeline has stages keep every stage busy. When pages run out the
    youngest sequence loses its own and is computed again later.

    A sequence that was handed over may have its KV moved here in place of a first
    batch: `movable`, `start_move`, `end_move`. Who asks for batches asks for it first.

    No clock, no thread, no jax. Mutable; owned by the thread of the replica's head.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        num_pages: int,
        max_in_flight: int = 1,
        eos_token_ids: SequenceOf[int] = (),
    ) -> None:
        """A scheduler for a replica that leased `num_pages` pages on every stage."""
        assert max_in_flight >= 1, max_in_flight
        self._config = config
        self._max_in_flight = max_in_flight
        self._eos_token_ids = frozenset(eos_token_ids)
        self._pages = PagePool(num_pages)
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._in_flight: dict[BatchId, tuple[Span, ...]] = {}
        self._next_batch_id = 0
        self._num_moving = 0

    @property
    def capacity(self) -> int:
        """Sequences that run at once; more wait."""
        return self._config.max_sequences * self._max_in_flight

    @property
    def num_sequences(self) -> int:
        """Sequences that wait or run."""
        return len(self._waiting) + len(self._running)

    @property
    def num_waiting(self) -> int:
        """Sequences that have no pages."""
        return len(self._waiting)

    @property
    def num_in_flight(self) -> int:
        """Batches that were given out and are not complete."""
        return len(self._in_flight)

    @property
    def num_moving(self) -> int:
        """Sequences whose KV is on its way."""
        return self._num_moving

    @property
    def num_uncomputed(self) -> int:
        """Tokens to be computed before every running sequence has its next one."""
        return sum(sequence.num_uncomputed for sequence in self._running)

    @property
    def num_free_pages(self) -> int:
        """Pages that no sequence has."""
        return self._pages.num_free

    def add(self, sequence: Sequence) -> SequenceFinished | None:
        """Queues a sequence; says so if the tokens it brings already end it.

        Raises:
          OverloadedError: `max_waiting` sequences wait already.
          RequestError: its pages would be more than the replica has.
        """
        reason = sequence.finish_reason(self._eos_token_ids, self._config.max_context)
        if reason is not None:
            return SequenceFinished(sequence.id, reason)
        if len(self._waiting) >= self._config.max_waiting:
            raise OverloadedError(
                f"{len(self._waiting)} sequences wait on this replica, as many as may: "
                "try again later"
            )
        sampling, prompt = sequence.request.sampling, sequence.request.prompt_ids
        longest = min(len(prompt) + sampling.max_tokens, self._config.max_context)
        if self._config.pages_for(longest) > self._pages.num_pages:
            raise RequestError(
                f"sequence {sequence.id} may grow to {longest} tokens and the replica "
                f"has {self._pages.num_pages} pages of {self._config.page_tokens} "
                "tokens: ask for fewer tokens"
            )
        self._waiting.append(sequence)
        return None

    def cancel(self, sequence_id: SequenceId) -> SequenceFinished | None:
        """Forgets a sequence; None if there is no such sequence.

        The pages of a sequence in flight come back when its batch is complete.
        """
        for sequence in (*self._waiting, *self._running):
            if sequence.id == sequence_id and not sequence.is_cancelled:
                break
        else:
            return None
        if sequence in self._waiting:
            self._waiting.remove(sequence)
        elif sequence.is_in_flight:
            sequence.is_cancelled = True
        else:
            self._retire(sequence)
        return SequenceFinished(sequence_id, CANCELLED)

    def next_batch(self) -> ScheduledBatch | None:
        """The next micro-batch, or None if nothing can run before one completes."""
        if len(self._in_flight) >= self._max_in_flight:
            return None
        num_rows = self._config.row_buckets[-1]
        spans = self._refill_spans(num_rows)
        is_refill = bool(spans)
        if not is_refill:
            spans = self._decode_spans()
            spans += self._prefill_spans(num_rows - len(spans))
        if not spans:
            return None
        batch_id = BatchId(self._next_batch_id)
        self._next_batch_id += 1
        self._in_flight[batch_id] = tuple(spans)
        batch = batch_of(spans, self._config.pages_per_sequence)
        return ScheduledBatch(batch_id, batch, is_refill)

    def movable(self) -> Sequence | None:
        """The sequence whose turn it is, if its KV can be moved here; there is room.

        Either `start_move` is called for it, or its `num_movable` set to 0.
        """
        if not self._waiting or len(self._running) >= self.capacity:
            return None
        sequence = self._waiting[0]
        wanted = self._config.pages_for(len(sequence.token_ids))
        is_movable = sequence.num_movable and wanted <= self._pages.num_free
        return sequence if is_movable else None

    def start_move(self, sequence: Sequence) -> None:
        """Gives a movable sequence its pages; they are written until `end_move`."""
        assert sequence is self.movable(), sequence.id
        self._admit(sequence)
        sequence.is_in_flight = True
        self._num_moving += 1

    def end_move(self, sequence: Sequence, num_tokens: int) -> None:
        """The KV of the first so many tokens is in the pages; the rest is computed.

        Brings nothing for a sequence that was evacuated meanwhile.
        """
        if sequence not in self._running:
            return
        assert sequence.is_in_flight, sequence.id
        assert num_tokens < len(sequence.token_ids), (sequence.id, num_tokens)
        self._num_moving -= 1
        sequence.num_movable = 0
        sequence.is_in_flight = False
        sequence.num_computed = sequence.num_refilled = num_tokens
        if sequence.is_cancelled:
            self._retire(sequence)

    def complete(
        self, batch_id: BatchId, tokens: SequenceOf[int], logprobs: SequenceOf[float]
    ) -> list[TokenSampled | SequenceFinished]:
        """Takes the result of a batch, one token and logprob per row.

        A batch from before an evacuation is not known any more and brings nothing.

        Raises:
          TransportError: the result has another number of rows than the batch.
        """
        spans = self._in_flight.get(batch_id, ())
        num_rows = sum(span.count for span in spans)
        if spans and not len(tokens) == len(logprobs) == num_rows:
            raise TransportError(
                f"batch {batch_id} has {num_rows} rows, its result {len(tokens)} "
                f"tokens and {len(logprobs)} logprobs; close the pipeline"
            )
        self._in_flight.pop(batch_id, None)
        events: list[TokenSampled | SequenceFinished] = []
        last_row = -1
        for span in spans:
            last_row += span.count
            sequence = span.sequence
            sequence.is_in_flight = False
            sequence.num_computed += span.count
            sequence.num_refilled = sequence.num_computed
            if sequence.is_cancelled:
                self._retire(sequence)
            elif sequence.num_uncomputed == 0:
                events += self._sampled(
                    sequence, int(tokens[last_row]), float(logprobs[last_row])
                )
        return events

    def restart_first_stage(self) -> None:
        """The first stage runs more blocks now and lacks their KV; the others have all.

        Nothing may be in flight.
        """
        assert not self._in_flight, self._in_flight
        assert not self._num_moving, self._num_moving
        for sequence in self._running:
            sequence.num_refilled = 0

    def refilled(self, batch_id: BatchId) -> None:
        """The first stage has computed a refill."""
        for span in self._in_flight.pop(batch_id, ()):
            sequence = span.sequence
            sequence.is_in_flight = False
            sequence.num_refilled += span.count
            if sequence.is_cancelled:
                self._retire(sequence)

    def evacuate(self) -> list[Sequence]:
        """Every live sequence, oldest first, for a hand-over; the scheduler is empty.

        What is in flight is forgotten: its tokens will be sampled again, the same. The
        sequences still tell which of their tokens have KV, and in which pages.
        """
        sequences = [*self._running, *self._waiting]
        for sequence in self._running:
            self._pages.release(sequence.pages)
        self._running.clear()
        self._waiting.clear()
        self._in_flight.clear()
        self._num_moving = 0
        return [sequence for sequence in sequences if not sequence.is_cancelled]

    def _refill_spans(self, num_rows: int) -> list[Span]:
        """Tokens whose KV only the first stage lacks, oldest sequence first."""
        spans: list[Span] = []
        for sequence in self._running:
            count = min(num_rows, sequence.num_computed - sequence.num_refilled)
            if count > 0 and not sequence.is_in_flight:
                sequence.is_in_flight = True
                spans.append(Span(sequence, sequence.num_refilled, count))
                num_rows -= count
        return spans

    def _decode_spans(self) -> list[Span]:
        """One row of each running sequence that lacks one token only."""
        spans: list[Span] = []
        for sequence in list(self._running):
            if len(spans) == self._config.max_sequences:
                break
            if sequence.is_in_flight or sequence.num_uncomputed != 1:
                continue
            if sequence.pages and self._grow(sequence):
                spans.append(take(sequence, 1))
        return spans

    def _prefill_spans(self, num_rows: int) -> list[Span]:
        """Chunks of prompts: first of those that run, then of those that wait."""
        spans: list[Span] = []
        for sequence in list(self._running):
            if num_rows > 0 and not sequence.is_in_flight:
                count = min(num_rows, sequence.num_uncomputed)
                if count > 1:
                    spans.append(take(sequence, count))
                    num_rows -= count
        while num_rows > 0 and self._waiting and len(self._running) < self.capacity:
            sequence = self._waiting[0]
            wanted = self._config.pages_for(len(sequence.token_ids))
            if wanted > self._pages.num_free or sequence.num_movable:
                break
            self._admit(sequence)
            count = min(num_rows, sequence.num_uncomputed)
            spans.append(take(sequence, count))
            num_rows -= count
        return spans

    def _admit(self, sequence: Sequence) -> None:
        """Gives who waits longest pages for its tokens, of which enough are free."""
        assert sequence is self._waiting[0], sequence.id
        self._waiting.popleft()
        wanted = self._config.pages_for(len(sequence.token_ids))
        sequence.pages = self._pages.lease(wanted)
        self._running.append(sequence)

    def _grow(self, sequence: Sequence) -> bool:
        """Gives a sequence the page it needs next, a younger one's if there is none."""
        missing = self._config.pages_for(len(sequence.token_ids)) - len(sequence.pages)
        while missing > self._pages.num_free:
            younger = self._running[self._running.index(sequence) + 1 :]
            idle = [victim for victim in younger if not victim.is_in_flight]
            if not idle:
                return False
            self._retire(idle[-1])
            self._waiting.appendleft(idle[-1])
        if missing > 0:
            sequence.pages += self._pages.lease(missing)
        return True

    def _sampled(
        self, sequence: Sequence, token: int, logprob: float
    ) -> list[TokenSampled | SequenceFinished]:
        """Appends a token to a sequence and tells what that means."""
        sequence.token_ids.append(token)
        sampled = TokenSampled(sequence.id, sequence.num_generated - 1, token, logprob)
        reason = sequence.finish_reason(self._eos_token_ids, self._config.max_context)
        if reason is None:
            return [sampled]
        self._retire(sequence)
        return [sampled, SequenceFinished(sequence.id, reason)]

    def _retire(self, sequence: Sequence) -> None:
        """Takes a running sequence off, and its pages back."""
        self._running.remove(sequence)
        self._pages.release(sequence.pages)
        sequence.pages = []
        sequence.num_computed = 0
        sequence.num_refilled = 0
        sequence.is_in_flight = False
