"""The head of a simulated replica: `jscale.pipeline.head` without rows."""

from collections.abc import Callable, Iterable

from jscale.core.ids import SequenceId
from jscale.engine.config import EngineConfig
from jscale.pipeline.messages import Finished, Moved, PipelineSpec, Returned, Submit
from jscale.simulation.batching import SimulatedBatch, SimulatedScheduler
from jscale.simulation.sequence_progress import SimulatedServeEvent, progress_of

Tell = Callable[[str, list[SimulatedServeEvent]], None]


class SimulatedHead:
    """Owns the sequences of one replica. Owned by the device of its head worker."""

    def __init__(self, spec: PipelineSpec, config: EngineConfig, tell: Tell) -> None:
        self._spec = spec
        self._config = config
        self._tell = tell
        self._early: list[tuple[str, Submit]] | None = (
            [] if spec.continues is not None else None
        )
        self.scheduler = SimulatedScheduler(
            config, num_pages=spec.num_pages, max_in_flight=len(spec.stages)
        )
        self._attempts: dict[SequenceId, tuple[str, int]] = {}
        self._is_finishing = False
        self._is_paused = False

    @property
    def num_sequences(self) -> int:
        """Sequences that are not finished."""
        return len(self._attempts)

    @property
    def sequences(self) -> list[SequenceId]:
        """Those, by name."""
        return list(self._attempts)

    @property
    def is_finished(self) -> bool:
        """Asked to finish, and has."""
        return self._is_finishing and not self._attempts

    @property
    def is_drained(self) -> bool:
        """Paused, has taken over what it was to, and has nothing in flight."""
        has_all = self._early is None
        return self._is_paused and has_all and not self.scheduler.in_flight

    def take_over(self, older: "SimulatedHead | None") -> None:
        """Goes on with what an older head has. Only the first call counts."""
        if self._early is None:
            return
        early, self._early = self._early, None
        if older is not None:
            self.scheduler, self._attempts = older.scheduler, older._attempts
            self.scheduler.restart_first_stage()
            self._say(
                (gateway, Moved(sequence, attempt, self._spec.pipeline))
                for sequence, (gateway, attempt) in self._attempts.items()
            )
        for gateway, command in early:
            self.submit(gateway, command)

    def pause(self) -> None:
        """Schedules nothing more: another head will take over what is here."""
        self._is_paused = True

    def submit(self, gateway: str, command: Submit) -> None:
        """Takes a sequence on, or says at once why not."""
        if self._early is not None:
            self._early.append((gateway, command))
            return
        sequence, attempt = command.sequence, command.attempt
        if self._is_finishing or sequence in self._attempts:
            why = "the replica takes no more" if self._is_finishing else "is here"
            self._tell(gateway, [Returned(sequence, attempt, why)])
            return
        progress = progress_of(gateway, command, self._config.max_context)
        refusal = self.scheduler.add(progress)
        if refusal is not None:
            self._tell(gateway, [refusal])
        else:
            self._attempts[sequence] = (gateway, attempt)

    def cancel(self, sequence: SequenceId) -> None:
        """Forgets a sequence."""
        if self._early is not None:
            self._early = [e for e in self._early if e[1].sequence != sequence]
        if self._attempts.pop(sequence, None) is not None:
            self.scheduler.cancel(sequence)

    def forget_gateway(self, gateway: str) -> None:
        """Cancels what a gateway that is gone had submitted."""
        if self._early is not None:
            self._early = [each for each in self._early if each[0] != gateway]
        for sequence, (owner, _) in list(self._attempts.items()):
            if owner == gateway:
                self.scheduler.cancel(sequence)
                del self._attempts[sequence]

    def next_batch(self, num_steps_max: int) -> SimulatedBatch | None:
        """The next micro-batch, or None if every sequence waits for one in flight."""
        if self._early is not None or self._is_paused:
            return None
        return self.scheduler.next_batch(num_steps_max)

    def complete(self, batch: SimulatedBatch, from_ns: int, to_ns: int) -> None:
        """Takes the results of a micro-batch, and tells the gateways."""
        told = self.scheduler.complete(batch, from_ns, to_ns)
        for _, event in told:
            if isinstance(event, Finished):
                self._attempts.pop(event.sequence, None)
        self._say(told)

    def finish(self) -> None:
        """Takes nothing new; what is here runs to its end."""
        self._is_finishing = True

    def give_back(self, reason: str) -> None:
        """Returns every sequence to its gateway, which hands it over to another."""
        self.take_over(None)
        told = [
            (gateway, Returned(sequence, attempt, reason))
            for sequence, (gateway, attempt) in self._attempts.items()
        ]
        self.scheduler.evacuate()
        self._attempts.clear()
        self._say(told)

    def _say(self, told: Iterable[tuple[str, SimulatedServeEvent]]) -> None:
        events: dict[str, list[SimulatedServeEvent]] = {}
        for gateway, event in told:
            events.setdefault(gateway, []).append(event)
        for gateway, happened in events.items():
            self._tell(gateway, happened)
