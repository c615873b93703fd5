"""The head of a replica: schedules its sequences and says what became of them."""

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf

import msgspec
from absl import logging

from jscale.core.errors import OverloadedError, RequestError
from jscale.core.ids import BatchId, SequenceId
from jscale.core.units import NS_PER_MS
from jscale.engine.config import EngineConfig
from jscale.engine.scheduler import (
    ScheduledBatch,
    Scheduler,
    SequenceFinished,
    TokenSampled,
)
from jscale.engine.sequence import Sequence
from jscale.pipeline.kv_arrivals import KvArrivals
from jscale.pipeline.messages import (
    Emitted,
    Finished,
    KvMoved,
    Moved,
    MoveEnded,
    MoveKv,
    PipelineSpec,
    Rejected,
    Returned,
    ServeEvent,
    Submit,
)
from jscale.pipeline.outbox import Outbox


class Head:
    """Owns the sequences of one replica, on the device thread of its head worker."""

    def __init__(
        self,
        spec: PipelineSpec,
        config: EngineConfig,
        outbox: Outbox,
        eos_token_ids: SequenceOf[int],
        *,
        arrivals: KvArrivals,
        now_ns: Callable[[], int],
    ) -> None:
        self._spec = spec
        self._arrivals = arrivals
        self._now_ns = now_ns
        self._begun: dict[BatchId, tuple[int, int]] = {}
        self._outbox = outbox
        self._early: list[tuple[str, Submit]] | None = (
            [] if spec.continues is not None else None
        )
        self._scheduler = Scheduler(
            config,
            num_pages=spec.num_pages,
            max_in_flight=len(spec.stages),
            eos_token_ids=eos_token_ids,
        )
        self._attempts: dict[SequenceId, tuple[str, int]] = {}
        self._is_finishing = False
        self._is_paused = False

    @property
    def num_sequences(self) -> int:
        """Sequences that are not finished."""
        return len(self._attempts)

    @property
    def is_finished(self) -> bool:
        """Asked to finish, and has."""
        return self._is_finishing and not self._attempts

    def take_over(self, older: "Head | None") -> None:
        """Goes on with what an older head has; until then new sequences wait here.

        None: there is nothing to go on with. Only the first call counts.
        """
        if self._early is None:
            return
        early, self._early = self._early, None
        if older is not None:
            assert older.is_drained
            self._scheduler, self._attempts = older._scheduler, older._attempts
            self._arrivals.take_over(older._arrivals)
            self._scheduler.restart_first_stage()
            told: dict[str, list[ServeEvent]] = {}
            for sequence, (gateway, attempt) in self._attempts.items():
                moved = Moved(sequence, attempt, self._spec.pipeline)
                told.setdefault(gateway, []).append(moved)
            self._tell(told)
        for gateway, command in early:
            self.submit(gateway, command)

    def pause(self) -> None:
        """Schedules nothing more: another head will take over what is here."""
        self._is_paused = True

    @property
    def is_drained(self) -> bool:
        """Paused, has taken over what it was to, and has nothing in flight."""
        has_all = self._early is None
        in_flight = self._scheduler.num_in_flight + self._scheduler.num_moving
        return self._is_paused and has_all and not in_flight

    def submit(self, gateway: str, command: Submit) -> None:
        """Takes a sequence on, or says at once why not."""
        if self._early is not None:
            self._early.append((gateway, command))
            return
        sequence, attempt = command.sequence, command.attempt
        if self._is_finishing or sequence in self._attempts:
            why = "the replica takes no more" if self._is_finishing else "is here"
            returned = Returned(sequence, attempt, why, command.kv)
            self._outbox.emit(gateway, (returned,))
            return
        told: ServeEvent | None = None
        # Clients choose the ids of requests; those of sequences are unique here.
        request = msgspec.structs.replace(command.request, id=sequence)
        added = Sequence(request, command.generated)
        try:
            ended = self._scheduler.add(added)
        except RequestError as error:
            told = Rejected(sequence, attempt, str(error))
        except OverloadedError as error:
            told = Returned(sequence, attempt, str(error), command.kv)
        else:
            if ended is not None:
                told = Finished(sequence, attempt, ended.reason)
        if told is not None:
            self._outbox.emit(gateway, (told,))
        else:
            self._attempts[sequence] = (gateway, attempt)
            self._arrivals.expect(added, command.kv)

    def cancel(self, sequence: SequenceId) -> None:
        """Forgets a sequence; nothing more is said of it but that."""
        for gateway, command in list(self._early or ()):
            if command.sequence == sequence:
                assert self._early is not None
                self._early.remove((gateway, command))
                finished = Finished(sequence, command.attempt, "cancelled")
                self._outbox.emit(gateway, (finished,))
        if sequence in self._attempts:
            self._scheduler.cancel(sequence)
            self._arrivals.forget(sequence)
            gateway, attempt = self._attempts.pop(sequence)
            self._outbox.emit(gateway, (Finished(sequence, attempt, "cancelled"),))

    def forget_gateway(self, gateway: str) -> None:
        """Cancels what a gateway that is gone had submitted."""
        if self._early is not None:
            self._early = [each for each in self._early if each[0] != gateway]
        for sequence, (owner, _) in list(self._attempts.items()):
            if owner == gateway:
                self._scheduler.cancel(sequence)
                self._arrivals.forget(sequence)
                del self._attempts[sequence]

    def next_batch(self) -> ScheduledBatch | None:
        """The next micro-batch, or None if every sequence waits for one in flight."""
        if self._early is not None or self._is_paused:
            return None
        scheduled = self._scheduler.next_batch()
        if scheduled is not None and not scheduled.is_refill:
            self._begun[scheduled.id] = scheduled.batch.num_rows, self._now_ns()
        return scheduled

    def next_move(self) -> MoveKv | None:
        """What every stage is to be told, if KV is to be moved here before that."""
        if self._early is not None or self._is_paused:
            return None
        return self._arrivals.next_move(self._scheduler, self._now_ns())

    @property
    def deadline_ns(self) -> int | None:
        """When the replica is broken unless its stages say how moves ended."""
        return self._arrivals.deadline_ns

    def move_ended(self, message: MoveEnded) -> None:
        """A stage has its part of what was to be moved, or never will."""
        arrival = self._arrivals.ended(message, self._scheduler, self._now_ns())
        if arrival is None:
            return
        sequence = arrival.sequence.id
        logging.info(
            "kv of sequence=%s %s tokens=%d bytes=%d took_ms=%.1f",
            sequence,
            f"recomputed ({arrival.reason})" if arrival.reason else "moved",
            arrival.num_tokens,
            arrival.size_bytes,
            arrival.took_ns / NS_PER_MS,
        )
        if arrival.num_tokens and not arrival.sequence.is_cancelled:
            gateway, attempt = self._attempts[sequence]
            moved = KvMoved(sequence, attempt, arrival.num_tokens, arrival.size_bytes)
            self._outbox.emit(gateway, (moved,))

    def complete(
        self, batch: BatchId, tokens: SequenceOf[int], logprobs: SequenceOf[float]
    ) -> None:
        """Takes the results of a micro-batch, and tells the gateways.

        Raises:
          TransportError: the results are not those of the batch.
        """
        if (begun := self._begun.pop(batch, None)) is not None:
            self._arrivals.prefill.seen(begun[0], self._now_ns() - begun[1])
        told: dict[str, list[ServeEvent]] = {}
        for event in self._scheduler.complete(batch, tokens, logprobs):
            sequence = event.sequence
            gateway, attempt = self._attempts[sequence]
            events = told.setdefault(gateway, [])
            match event:
                case TokenSampled(_, index, token, logprob):
                    events.append(Emitted(sequence, attempt, index, token, logprob))
                case SequenceFinished(_, reason):
                    events.append(Finished(sequence, attempt, reason))
                    del self._attempts[sequence]
        self._tell(told)

    def refilled(self, batch: BatchId) -> None:
        """The first stage has computed a refill."""
        self._scheduler.refilled(batch)

    def finish(self) -> None:
        """Takes nothing new; what is here runs to its end."""
        self._is_finishing = True

    def give_back(self, reason: str, *, keeps_kv: bool) -> None:
        """Returns every sequence to its gateway, which hands it over to another.

        With `keeps_kv` the stages still have the KV, and the gateway is told so.
        """
        self.take_over(None)
        told: dict[str, list[ServeEvent]] = {}
        for sequence in self._scheduler.evacuate():
            gateway, attempt = self._attempts.pop(sequence.id)
            kv = self._arrivals.ticket_of(sequence) if keeps_kv else None
            returned = Returned(sequence.id, attempt, reason, kv)
            told.setdefault(gateway, []).append(returned)
        assert not self._attempts, self._attempts
        self._tell(told)

    def _tell(self, told: dict[str, list[ServeEvent]]) -> None:
        for gateway, events in told.items():
            self._outbox.emit(gateway, tuple(events))
