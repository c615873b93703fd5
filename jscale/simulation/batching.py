"""Continuous batching at the head of a simulated replica, several steps at a time.

The rules are those of `jscale.engine.scheduler`, without rows: a batch takes a token of
every sequence that decodes and fills up with chunks of prompts. Where all decode on one
worker, a batch stands for as many steps as pass until one of them ends.
"""

import dataclasses
from collections import deque

from jscale.core.ids import SequenceId
from jscale.engine.config import EngineConfig
from jscale.pipeline.messages import Finished, Rejected, Returned
from jscale.simulation.sequence_progress import (
    SequenceProgress,
    SimulatedServeEvent,
    TokensEmitted,
)


@dataclasses.dataclass(slots=True, eq=False)
class SimulatedBatch:
    """A micro-batch on its way through the stages.

    Attributes:
      spans: sequences, and how many tokens of each are computed.
      num_decoding: sequences of which it is one token, the last.
      context_tokens: KV that those read.
      prefill_tokens: the others' tokens.
      num_steps: steps that it stands for; 1 unless all decode on one worker.
      is_refill: for the first stage only.
    """

    spans: list[tuple[SequenceProgress, int]]
    num_decoding: int
    context_tokens: int
    prefill_tokens: int
    num_steps: int = 1
    is_refill: bool = False

    @property
    def num_rows(self) -> int:
        """Tokens whose activations travel."""
        return self.num_decoding + self.prefill_tokens


class SimulatedScheduler:
    """Sequences that wait, that run, and batches in flight. Owned by a head."""

    def __init__(
        self, config: EngineConfig, *, num_pages: int, max_in_flight: int
    ) -> None:
        self._config = config
        self._max_in_flight = max_in_flight
        self._num_pages = num_pages
        self.num_free_pages = num_pages
        self.waiting: deque[SequenceProgress] = deque()
        self.running: list[SequenceProgress] = []
        self.in_flight: list[SimulatedBatch] = []

    @property
    def num_sequences(self) -> int:
        """Sequences that wait or run."""
        return len(self.waiting) + len(self.running)

    def add(self, progress: SequenceProgress) -> SimulatedServeEvent | None:
        """Queues a sequence; what to say at once if that is not possible."""
        sequence, attempt = progress.sequence, progress.attempt
        if progress.length >= progress.length_max:
            return Finished(sequence, attempt, "length")
        if len(self.waiting) >= self._config.max_waiting:
            return Returned(sequence, attempt, "too many wait")
        if self._config.pages_for(progress.length_max) > self._num_pages:
            return Rejected(sequence, attempt, "it needs more pages than there are")
        self.waiting.append(progress)
        return None

    def cancel(self, sequence: SequenceId) -> None:
        """Forgets a sequence."""
        for progress in (*self.waiting, *self.running):
            if progress.sequence == sequence:
                break
        else:
            return
        if progress in self.waiting:
            self.waiting.remove(progress)
        elif progress.is_in_flight:
            progress.is_cancelled = True
        else:
            self._retire(progress)

    def next_batch(self, num_steps_max: int) -> SimulatedBatch | None:
        """The next micro-batch, or None if nothing can run before one completes."""
        if len(self.in_flight) >= self._max_in_flight:
            return None
        batch = self._refill()
        if batch is None:
            decoding = self._decoding()
            num_rows = self._config.row_buckets[-1] - len(decoding)
            prefilling = self._prefilling(num_rows)
            if not decoding and not prefilling:
                return None
            batch = SimulatedBatch(
                spans=[*((progress, 1) for progress in decoding), *prefilling],
                num_decoding=len(decoding),
                context_tokens=sum(progress.length for progress in decoding),
                prefill_tokens=sum(count for _, count in prefilling),
            )
            if not prefilling and self._max_in_flight == 1:
                batch.num_steps = self._num_steps(decoding, num_steps_max)
        for progress, _ in batch.spans:
            progress.is_in_flight = True
        self.in_flight.append(batch)
        return batch

    def complete(
        self, batch: SimulatedBatch, from_ns: int, to_ns: int
    ) -> list[tuple[str, SimulatedServeEvent]]:
        """Takes the result of a batch of `num_steps`; what to say to which gateway.

        A batch from before an evacuation brings nothing.
        """
        if batch not in self.in_flight:
            return []
        self.in_flight.remove(batch)
        told: list[tuple[str, SimulatedServeEvent]] = []
        for progress, count in batch.spans:
            progress.is_in_flight = False
            if progress.is_cancelled:
                self._retire(progress)
                continue
            if batch.is_refill:
                progress.num_refilled += count
                continue
            progress.num_computed += count
            if progress.num_computed == progress.length:
                told += self._sampled(progress, batch.num_steps, from_ns, to_ns)
            progress.num_refilled = progress.num_computed
        return told

    def restart_first_stage(self) -> None:
        """The first stage runs more blocks now and lacks their KV."""
        assert not self.in_flight
        for progress in self.running:
            progress.num_refilled = 0

    def evacuate(self) -> list[SequenceProgress]:
        """Every live sequence, oldest first; the scheduler is empty."""
        live = [p for p in (*self.running, *self.waiting) if not p.is_cancelled]
        self.waiting.clear()
        self.running.clear()
        self.in_flight.clear()
        self.num_free_pages = self._num_pages
        return live

    def _refill(self) -> SimulatedBatch | None:
        spans = [
            (progress, progress.num_computed - progress.num_refilled)
            for progress in self.running
            if progress.num_computed > progress.num_refilled
            and not progress.is_in_flight
        ]
        if not spans:
            return None
        num_tokens = sum(count for _, count in spans)
        return SimulatedBatch(spans, 0, 0, num_tokens, is_refill=True)

    def _decoding(self) -> list[SequenceProgress]:
        decoding: list[SequenceProgress] = []
        for progress in list(self.running):
            if len(decoding) == self._config.max_sequences:
                break
            if progress.is_in_flight or progress.num_uncomputed != 1:
                continue
            if progress.num_pages and self._grow(progress, progress.length):
                decoding.append(progress)
        return decoding

    def _prefilling(self, num_rows: int) -> list[tuple[SequenceProgress, int]]:
        spans: list[tuple[SequenceProgress, int]] = []
        for progress in self.running:
            count = min(num_rows, progress.num_uncomputed)
            if count > 1 and not progress.is_in_flight:
                spans.append((progress, count))
                num_rows -= count
        capacity = self._config.max_sequences * self._max_in_flight
        while num_rows > 0 and self.waiting and len(self.running) < capacity:
            progress = self.waiting[0]
            wanted = self._config.pages_for(progress.length)
            if wanted > self.num_free_pages:
                break
            self.waiting.popleft()
            progress.num_pages = wanted
            self.num_free_pages -= wanted
            self.running.append(progress)
            count = min(num_rows, progress.num_uncomputed)
            spans.append((progress, count))
            num_rows -= count
        return spans

    def _num_steps(self, decoding: list[SequenceProgress], num_steps_max: int) -> int:
        """Steps until one of them ends, or pages may run out."""
        steps = min(progress.length_max - progress.length for progress in decoding)
        steps = max(1, min(steps, num_steps_max))
        pages_each = self.num_free_pages // len(decoding)
        return min(steps, max(1, pages_each * self._config.page_tokens))

    def _grow(self, progress: SequenceProgress, length: int) -> bool:
        """Gives a sequence the pages it needs, a younger one's if there are none."""
        missing = self._config.pages_for(length) - progress.num_pages
        if missing <= 0:
            return True
        while missing > self.num_free_pages:
            younger = self.running[self.running.index(progress) + 1 :]
            idle = [victim for victim in younger if not victim.is_in_flight]
            if not idle:
                return False
            self._retire(idle[-1])
            self.waiting.appendleft(idle[-1])
        self.num_free_pages -= missing
        progress.num_pages += missing
        return True

    def _sampled(
        self, progress: SequenceProgress, count: int, from_ns: int, to_ns: int
    ) -> list[tuple[str, SimulatedServeEvent]]:
        sequence, attempt = progress.sequence, progress.attempt
        first = progress.num_generated
        progress.length += count
        progress.num_generated += count
        progress.num_computed = progress.length - 1
        told: list[tuple[str, SimulatedServeEvent]] = [
            (
                progress.gateway,
                TokensEmitted(sequence, attempt, first, count, from_ns, to_ns),
            )
        ]
        if progress.length >= progress.length_max:
            self._retire(progress)
            told.append((progress.gateway, Finished(sequence, attempt, "length")))
        elif count > 1:
            has_pages = self._grow(progress, progress.num_computed)
            assert has_pages, progress
        return told

    def _retire(self, progress: SequenceProgress) -> None:
        self.running.remove(progress)
        self.num_free_pages += progress.num_pages
        progress.lose_pages()
