"""The head of a replica: schedules its sequences and says what became of them."""

from collections.abc import Sequence as SequenceOf

import msgspec

from jscale.core.errors import OverloadedError, RequestError
from jscale.core.ids import BatchId, SequenceId
from jscale.engine.config import EngineConfig
from jscale.engine.scheduler import (
    ScheduledBatch,
    Scheduler,
    SequenceFinished,
    TokenSampled,
)
from jscale.engine.sequence import Sequence
from jscale.pipeline.messages import (
    Emitted,
    Finished,
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
    ) -> None:
        self._outbox = outbox
        self._scheduler = Scheduler(
            config,
            num_pages=spec.num_pages,
            max_in_flight=len(spec.stages),
            eos_token_ids=eos_token_ids,
        )
        self._attempts: dict[SequenceId, tuple[str, int]] = {}
        self._is_finishing = False

    @property
    def num_sequences(self) -> int:
        """Sequences that are not finished."""
        return len(self._attempts)

    @property
    def is_finished(self) -> bool:
        """Asked to finish, and has."""
        return self._is_finishing and not self._attempts

    def submit(self, gateway: str, command: Submit) -> None:
        """Takes a sequence on, or says at once why not."""
        sequence, attempt = command.sequence, command.attempt
        if self._is_finishing or sequence in self._attempts:
            why = "the replica takes no more" if self._is_finishing else "is here"
            self._outbox.emit(gateway, (Returned(sequence, attempt, why),))
            return
        told: ServeEvent | None = None
        # Clients choose the ids of requests; those of sequences are unique here.
        request = msgspec.structs.replace(command.request, id=sequence)
        try:
            ended = self._scheduler.add(Sequence(request, command.generated))
        except RequestError as error:
            told = Rejected(sequence, attempt, str(error))
        except OverloadedError as error:
            told = Returned(sequence, attempt, str(error))
        else:
            if ended is not None:
                told = Finished(sequence, attempt, ended.reason)
        if told is not None:
            self._outbox.emit(gateway, (told,))
        else:
            self._attempts[sequence] = (gateway, attempt)

    def cancel(self, sequence: SequenceId) -> None:
        """Forgets a sequence; nothing more is said of it but that."""
        if sequence in self._attempts:
            self._scheduler.cancel(sequence)
            gateway, attempt = self._attempts.pop(sequence)
            self._outbox.emit(gateway, (Finished(sequence, attempt, "cancelled"),))

    def forget_gateway(self, gateway: str) -> None:
        """Cancels what a gateway that is gone had submitted."""
        for sequence, (owner, _) in list(self._attempts.items()):
            if owner == gateway:
                self._scheduler.cancel(sequence)
                del self._attempts[sequence]

    def next_batch(self) -> ScheduledBatch | None:
        """The next micro-batch, or None if every sequence waits for one in flight."""
        return self._scheduler.next_batch()

    def complete(
        self, batch: BatchId, tokens: SequenceOf[int], logprobs: SequenceOf[float]
    ) -> None:
        """Takes the results of a micro-batch, and tells the gateways.

        Raises:
          TransportError: the results are not those of the batch.
        """
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
        for gateway, events in told.items():
            self._outbox.emit(gateway, tuple(events))

    def finish(self) -> None:
        """Takes nothing new; what is here runs to its end."""
        self._is_finishing = True

    def give_back(self, reason: str) -> None:
        """Returns every sequence to its gateway, which hands it over to another."""
        told: dict[str, list[ServeEvent]] = {}
        for sequence, (gateway, attempt) in self._attempts.items():
            told.setdefault(gateway, []).append(Returned(sequence, attempt, reason))
        self._scheduler.evacuate()
        self._attempts.clear()
        for gateway, events in told.items():
            self._outbox.emit(gateway, tuple(events))
