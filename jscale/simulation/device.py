"""A simulated device: `jscale.pipeline.stage_host` with times in place of arrays.

The local replica and the pipelines that the worker is a stage of take turns, one step
each; what waits for the same blocks runs in one step. Where only the local replica has
work, and all of it decodes, many steps are one event, cut short when other work comes.
"""

import collections
import dataclasses
from collections.abc import Iterable
from typing import Protocol

from jscale.core.ids import PipelineId, SequenceId, WorkerId
from jscale.core.units import NS_PER_MS
from jscale.engine.config import EngineConfig
from jscale.pipeline.messages import PipelineSpec, Returned, StageSpec, Submit
from jscale.simulation.accelerator import StepTimes, step_times
from jscale.simulation.batching import SimulatedBatch
from jscale.simulation.clock import Timer, VirtualClock
from jscale.simulation.head import SimulatedHead
from jscale.simulation.sequence_progress import SimulatedServeEvent
from jscale.simulation.settings import ModelCosts

RUN_NS_MAX = 400 * NS_PER_MS
"""Steps that are one event take so long at most: clients are told of tokens at its
end."""

_STEPS_MAX = 1 << 20


@dataclasses.dataclass(slots=True, eq=False)
class StageWork:
    """A micro-batch that waits for a stage; `started_ns` is when its head formed it."""

    spec: PipelineSpec
    stage_index: int
    batch: SimulatedBatch
    started_ns: int

    @property
    def stage(self) -> StageSpec:
        """The stage."""
        return self.spec.stages[self.stage_index]


class DeviceOutbox(Protocol):
    """What a device says to the world."""

    def pass_on(self, work: StageWork) -> None:
        """To the worker of the work's stage, activations and all."""

    def answer(self, work: StageWork) -> None:
        """To the head: the last stage is done with the batch."""

    def tell(self, gateway: str, events: list[SimulatedServeEvent]) -> None:
        """To a gateway."""

    def closed(self, pipeline: PipelineId, reason: str) -> None:
        """To the worker's state machine."""

    def ran(self, prefill_tokens: int, passed_ns: int) -> None:
        """To whoever counts: so many prompt tokens were computed on the way."""


@dataclasses.dataclass(slots=True, eq=False)
class _OpenPipeline:
    spec: PipelineSpec
    lease: "_Lease"
    head: SimulatedHead | None
    waiting: collections.deque[StageWork]
    continued_by: PipelineId | None = None


@dataclasses.dataclass(slots=True, eq=False)
class _Lease:
    num_pages: int
    num_users: int = 0


@dataclasses.dataclass(slots=True, eq=False)
class _Run:
    """What the device computes now."""

    works: list[StageWork]
    times: StepTimes
    started_ns: int
    num_steps: int
    timer: Timer


class SimulatedDevice:
    """Owns stages, heads and pages of a worker."""

    def __init__(
        self,
        worker: WorkerId,
        model: ModelCosts,
        config: EngineConfig,
        outbox: DeviceOutbox,
        clock: VirtualClock,
    ) -> None:
        self._worker = worker
        self._model = model
        self._config = config
        self._outbox = outbox
        self._clock = clock
        self._num_free_pages = config.num_pages
        self._pipelines: dict[PipelineId, _OpenPipeline] = {}
        self._turns: collections.deque[PipelineId] = collections.deque()
        self._is_local_turn = True
        self._run: _Run | None = None

    @property
    def sequences(self) -> list[SequenceId]:
        """Sequences of which this worker is the head."""
        heads = [each.head for each in self._pipelines.values() if each.head]
        return [sequence for head in heads for sequence in head.sequences]

    @property
    def num_leased_pages(self) -> int:
        """Pages that pipelines have."""
        leases = {id(p.lease): p.lease.num_pages for p in self._pipelines.values()}
        return sum(leases.values())

    def open(self, spec: PipelineSpec) -> str:
        """Leases the pages of a pipeline's stages here; why not, if that fails."""
        if spec.continues is None:
            if spec.num_pages > self._num_free_pages:
                return f"{self._num_free_pages} pages are free, not {spec.num_pages}"
            lease = _Lease(spec.num_pages)
            self._num_free_pages -= spec.num_pages
        elif spec.continues in self._pipelines:
            lease = self._pipelines[spec.continues].lease
        else:
            return f"pipeline {spec.continues}, which it continues, is gone"
        lease.num_users += 1
        head = None
        if spec.head == self._worker:
            head = SimulatedHead(spec, self._config, self._outbox.tell)
        waiting: collections.deque[StageWork] = collections.deque()
        opened = _OpenPipeline(spec, lease, head, waiting)
        self._pipelines[spec.pipeline] = opened
        self._turns.append(spec.pipeline)
        return ""

    def close(
        self,
        pipeline: PipelineId,
        reason: str,
        *,
        finish: bool = False,
        continued_by: PipelineId | None = None,
    ) -> None:
        """Ends a pipeline here; closing what is not open does nothing."""
        opened = self._pipelines.get(pipeline)
        if opened is None:
            return
        if finish and opened.head and opened.head.num_sequences:
            opened.head.finish()
            return
        if continued_by in self._pipelines:
            opened.continued_by = continued_by
            if opened.head:
                opened.head.pause()
                self._hand_on(opened)
            self._go_on()
            return
        self._end(opened, reason)
        self._go_on()

    def break_with(self, peer: WorkerId) -> None:
        """Closes every pipeline that a lost worker was part of."""
        for opened in list(self._pipelines.values()):
            if peer in opened.spec.workers:
                self.close(opened.spec.pipeline, f"{peer} is lost")

    def submit(self, gateway: str, commands: Iterable[Submit]) -> None:
        """Takes sequences on together, or returns them if their replica is gone."""
        for command in commands:
            opened = self._pipelines.get(command.pipeline)
            if opened is None or opened.head is None:
                why = "the replica is closed"
                gone = Returned(command.sequence, command.attempt, why)
                self._outbox.tell(gateway, [gone])
            else:
                opened.head.submit(gateway, command)
        self._interrupt()
        self._go_on()

    def cancel(self, sequence: SequenceId) -> None:
        """Forgets a sequence, wherever it is."""
        for opened in self._pipelines.values():
            if opened.head:
                opened.head.cancel(sequence)
        self._close_finished()

    def forget_gateway(self, gateway: str) -> None:
        """Cancels what a gateway that is gone had submitted."""
        for opened in self._pipelines.values():
            if opened.head:
                opened.head.forget_gateway(gateway)
        self._close_finished()

    def take_input(self, work: StageWork) -> None:
        """A micro-batch arrived for a stage here; dropped if that is closed."""
        opened = self._pipelines.get(work.spec.pipeline)
        if opened is None:
            return
        older = self._pipelines.get(opened.spec.continues or PipelineId(0))
        if older is not None and older.continued_by is not None:
            self._end(older, "continued")
        opened.waiting.append(work)
        self._interrupt()
        self._go_on()

    def take_sampled(self, work: StageWork) -> None:
        """The last stage finished a micro-batch of which we are the head."""
        opened = self._pipelines.get(work.spec.pipeline)
        if opened is not None and opened.head is not None:
            opened.head.complete(work.batch, work.started_ns, self._clock.now_ns)
            self._hand_on(opened)
            self._close_finished()
            self._go_on()

    def settle(self) -> None:
        """Says what steps that are over have brought; the device stops."""
        run = self._run
        if run is None:
            return
        self._run = None
        run.timer.cancel()
        passed_ns = self._clock.now_ns - run.started_ns
        num_steps = min(run.num_steps, run.times.num_steps_in(passed_ns))
        batch = run.works[0].batch
        if batch.num_steps > 1 and num_steps:
            batch.num_steps = num_steps
            self._answer_all(run)

    # --- one after the other -----------------------------------------------------

    def _go_on(self) -> None:
        """Begins the next step if none is under way."""
        if self._run is not None:
            return
        for is_local in (self._is_local_turn, not self._is_local_turn):
            for pipeline in list(self._turns):
                opened = self._pipelines[pipeline]
                if opened.spec.is_local != is_local:
                    continue
                self._turns.remove(pipeline)
                self._turns.append(pipeline)
                work = self._next_work(opened)
                if work is not None:
                    self._is_local_turn = not is_local
                    self._begin([work, *self._take_fitting(work)])
                    return

    def _next_work(self, opened: _OpenPipeline) -> StageWork | None:
        """What has come furthest goes first: it frees the pipeline soonest."""
        if opened.waiting:
            return opened.waiting.popleft()
        batch = opened.head.next_batch(_STEPS_MAX) if opened.head else None
        if batch is None:
            return None
        return StageWork(opened.spec, 0, batch, self._clock.now_ns)

    def _take_fitting(self, work: StageWork) -> list[StageWork]:
        """All that waits for the same blocks, as far as a step has room."""
        taken: list[StageWork] = []
        num_rows = work.batch.num_rows
        first, num_blocks = work.stage.first_block, work.stage.num_blocks
        for pipeline in self._turns:
            waiting = self._pipelines[pipeline].waiting
            while waiting and (first, num_blocks) == (
                waiting[0].stage.first_block,
                waiting[0].stage.num_blocks,
            ):
                num_rows += waiting[0].batch.num_rows
                if num_rows > self._config.row_buckets[-1]:
                    return taken
                taken.append(waiting.popleft())
        return taken

    def _begin(self, works: list[StageWork]) -> None:
        batches = [work.batch for work in works]
        times = step_times(self._model, batches, works[0].stage.num_blocks)
        num_steps = batches[0].num_steps
        if num_steps > 1:
            num_steps = min(num_steps, max(1, times.num_steps_in(RUN_NS_MAX)))
            if any(each.waiting for each in self._pipelines.values()):
                num_steps = 1
            batches[0].num_steps = num_steps
        passed_ns = times.elapsed_ns(num_steps)
        timer = self._clock.after(passed_ns, self._ended)
        self._run = _Run(works, times, self._clock.now_ns, num_steps, timer)

    def _interrupt(self) -> None:
        """Other work has come: many steps in a row end with the one under way."""
        run = self._run
        if run is None or run.num_steps == 1:
            return
        passed_ns = self._clock.now_ns - run.started_ns
        num_steps = run.times.num_steps_in(passed_ns) + 1
        if num_steps < run.num_steps:
            run.num_steps = run.works[0].batch.num_steps = num_steps
            run.timer.cancel()
            end_ns = run.started_ns + run.times.elapsed_ns(num_steps)
            run.timer = self._clock.at(end_ns, self._ended)

    def _ended(self) -> None:
        """The step, or the last of many, is over."""
        run = self._run
        assert run is not None
        self._run = None
        prefill_tokens = sum(work.batch.prefill_tokens for work in run.works)
        self._outbox.ran(
            prefill_tokens * run.works[0].stage.num_blocks // self._model.num_blocks,
            self._clock.now_ns - run.started_ns,
        )
        self._answer_all(run)
        self._close_finished()
        self._go_on()

    def _answer_all(self, run: _Run) -> None:
        for work in run.works:
            is_last = work.stage_index == len(work.spec.stages) - 1
            if is_last and work.spec.head != self._worker:
                self._outbox.answer(work)
            elif is_last or work.batch.is_refill:
                self._answer(work)
            else:
                self._pass_on(work)

    def _answer(self, work: StageWork) -> None:
        opened = self._pipelines.get(work.spec.pipeline)
        if opened is not None and opened.head is not None:
            opened.head.complete(work.batch, work.started_ns, self._clock.now_ns)
            self._hand_on(opened)

    def _pass_on(self, work: StageWork) -> None:
        work.stage_index += 1
        opened = self._pipelines.get(work.spec.pipeline)
        if work.stage.worker == self._worker and opened is not None:
            opened.waiting.append(work)
        else:
            self._outbox.pass_on(work)

    # --- the end of pipelines ----------------------------------------------------

    def _end(self, opened: _OpenPipeline, reason: str) -> None:
        pipeline = opened.spec.pipeline
        if self._run is not None and self._run.works[0].spec is opened.spec:
            self._flush()
        del self._pipelines[pipeline]
        self._turns.remove(pipeline)
        opened.lease.num_users -= 1
        if not opened.lease.num_users:
            self._num_free_pages += opened.lease.num_pages
        if opened.head:
            opened.head.give_back(reason)
        self._outbox.closed(pipeline, reason)
        for other in list(self._pipelines.values()):
            if other.continued_by == pipeline:
                self._end(other, reason)
            elif other.spec.continues == pipeline and other.head:
                other.head.take_over(None)

    def _flush(self) -> None:
        """Says what the steps that are over have brought, before sequences go."""
        run = self._run
        assert run is not None
        if run.num_steps > 1:
            self.settle()

    def _hand_on(self, opened: _OpenPipeline) -> None:
        """Gives the sequences to the next head once nothing is in flight."""
        newer = self._pipelines.get(opened.continued_by or PipelineId(0))
        if newer is None or opened.head is None or not opened.head.is_drained:
            return
        assert newer.head is not None, newer.spec
        newer.head.take_over(opened.head)
        opened.head = None
        self._end(opened, "continued")
        self._hand_on(newer)

    def _close_finished(self) -> None:
        for opened in list(self._pipelines.values()):
            if opened.head and opened.head.is_finished:
                self.close(opened.spec.pipeline, "finished")
