"""All that one worker runs: its stages of every pipeline, and the heads among them.

A worker has one device and hence one order of work. The local replica and the pipelines
that the worker is a stage of take turns, one step each, so that however many targets a
source helps, its own sequences keep half of its time; and pipelines take turns among
themselves.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jscale.core.errors import JscaleError, TransportError
from jscale.core.ids import PipelineId, SequenceId, WorkerId
from jscale.engine.batch import StepBatch
from jscale.engine.config import EngineConfig
from jscale.engine.executor import SampledRows, StageExecutor
from jscale.pipeline.head import Head
from jscale.pipeline.kv_arrivals import KvArrivals
from jscale.pipeline.kv_mover import KvMover
from jscale.pipeline.lease import Leases
from jscale.pipeline.messages import (
    FetchKv,
    KvPiece,
    MoveEnded,
    MoveKv,
    PipelineBroken,
    PipelineSpec,
    Returned,
    Sampled,
    StageInput,
    StageMessage,
    StageSpec,
    Submit,
)
from jscale.pipeline.outbox import Outbox
from jscale.pipeline.rates import LinkRate
from jscale.pipeline.turns import OpenPipeline, Turns
from jscale.pipeline.work import Work, merge


class StageHost:
    """Owns stages, heads and pages of a worker. Owned by the device thread."""

    def __init__(
        self,
        worker: WorkerId,
        config: EngineConfig,
        executor: StageExecutor,
        outbox: Outbox,
        *,
        eos_token_ids: Sequence[int] = (),
        link_bytes_per_s: float | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._worker = worker
        self._config = config
        self._executor = executor
        self._outbox = outbox
        self._eos_token_ids = eos_token_ids
        self._now_ns = now_ns
        self._link = LinkRate(link_bytes_per_s)
        self._leases = Leases(config.num_pages)
        self._mover = KvMover(
            worker, executor, self._leases, outbox, ended=self._move_ended
        )
        self._pipelines: dict[PipelineId, OpenPipeline] = {}
        self.kv_wanted_ns: int | None = None
        """When KV was last left here for somebody, or given; any thread may look."""
        self._turns = Turns(config.row_buckets[-1])

    @property
    def num_sequences(self) -> int:
        """Sequences of which this worker is the head."""
        return sum(p.head.num_sequences for p in self._pipelines.values() if p.head)

    @property
    def num_free_pages(self) -> int:
        """Pages that pipelines may still lease here."""
        return self._leases.num_free

    @property
    def deadline_ns(self) -> int | None:
        """When `run_one` is due even if nothing happened; None: never."""
        heads = [each.head for each in self._pipelines.values() if each.head]
        deadlines = [self._mover.deadline_ns, *(head.deadline_ns for head in heads)]
        return min((ns for ns in deadlines if ns is not None), default=None)

    def open(self, spec: PipelineSpec) -> None:
        """Leases the pages of a pipeline's stages here, or shares those it continues.

        Raises:
          OverloadedError: too few pages are free.
          UnavailableError: the pipeline that it continues is gone.
        """
        assert spec.pipeline not in self._pipelines, spec
        self._leases.open(spec.pipeline, spec.num_pages, spec.continues)
        page_map = self._leases.page_map(spec.pipeline)
        assert page_map is not None, spec
        head = self._head(spec) if spec.head == self._worker else None
        opened = OpenPipeline(spec, page_map, head)
        self._pipelines[spec.pipeline] = opened
        self._turns.add(opened)

    def close(
        self,
        pipeline: PipelineId,
        reason: str,
        *,
        finish: bool = False,
        continued_by: PipelineId | None = None,
    ) -> None:
        """Ends a pipeline here; closing what is not open does nothing.

        With `finish` a head first runs its sequences to the end. With `continued_by`
        its sequences go on there; else the gateways get them back.
        """
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
            return  # Not a head: what is in flight comes before the newer one's.
        self._end(opened, reason, keeps_kv=True)

    def _head(self, spec: PipelineSpec) -> Head:
        blocks = range(self._executor.num_blocks)
        arrivals = KvArrivals(
            spec,
            self._config,
            kv_bytes_per_token=sum(map(self._executor.kv_bytes_per_token, blocks)),
            link=self._link,
        )
        return Head(
            spec,
            self._config,
            self._outbox,
            self._eos_token_ids,
            arrivals=arrivals,
            now_ns=self._now_ns,
        )

    def _end(self, opened: OpenPipeline, reason: str, *, keeps_kv: bool) -> None:
        pipeline = opened.spec.pipeline
        del self._pipelines[pipeline]
        self._turns.remove(opened)
        self._mover.drop(pipeline)
        self._leases.close(pipeline)
        if keeps_kv and (opened.head is None or opened.head.num_sequences):
            self._kv_is_wanted()
        if opened.head:
            opened.head.give_back(reason, keeps_kv=keeps_kv)
        self._outbox.closed(pipeline, reason)
        for other in list(self._pipelines.values()):
            if other.continued_by == pipeline:  # It waited for this one.
                self._end(other, reason, keeps_kv=keeps_kv)
            elif other.spec.continues == pipeline and other.head:
                other.head.take_over(None)

    def _hand_on(self, opened: OpenPipeline) -> None:
        """Gives the sequences to the next head once nothing is in flight."""
        newer = self._pipelines.get(opened.continued_by or PipelineId(0))
        if newer is None or opened.head is None or not opened.head.is_drained:
            return
        assert newer.head is not None, newer.spec
        newer.head.take_over(opened.head)
        opened.head = None
        self._end(opened, "continued", keeps_kv=False)
        self._hand_on(newer)  # It may have been superseded while it waited.

    def break_with(self, peer: WorkerId) -> None:
        """Closes every pipeline that a lost worker was part of."""
        for pipeline, opened in list(self._pipelines.items()):
            if peer in opened.spec.workers:
                self._broken(pipeline, f"{peer} is lost")
        self._mover.lose(peer, self._now_ns())

    def submit(self, gateway: str, command: Submit) -> None:
        """Takes a sequence on, or returns it if its replica is gone."""
        opened = self._pipelines.get(command.pipeline)
        if opened is None or opened.head is None:
            gone = "the replica is closed"
            returned = Returned(command.sequence, command.attempt, gone, command.kv)
            self._outbox.emit(gateway, (returned,))
            return
        opened.head.submit(gateway, command)

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

    def take(self, message: StageMessage, payload: memoryview) -> None:
        """Something that another worker says."""
        match message:
            case StageInput():
                self._take_input(message, payload)
            case Sampled():
                self._take_sampled(message)
            case PipelineBroken(pipeline, reason):
                self._broken(pipeline, reason)
            case MoveKv():
                self._move(message)
            case MoveEnded(pipeline):
                if (opened := self._pipelines.get(pipeline)) is not None:
                    self._move_ended(opened.spec, message)
            case FetchKv():
                self._kv_is_wanted()
                self._mover.give(message)
            case KvPiece():
                self._mover.arrived(message, payload, self._now_ns())

    def _take_input(self, message: StageInput, payload: memoryview) -> None:
        """A micro-batch arrived for a stage here; dropped if that is closed."""
        opened = self._pipelines.get(message.pipeline)
        if opened is None:
            return
        older = self._pipelines.get(opened.spec.continues or PipelineId(0))
        if older is not None and older.continued_by is not None:
            assert not older.waiting, "its head hands on when nothing is in flight"
            self._end(older, "continued", keeps_kv=False)
        try:
            batch = StepBatch.from_bytes(payload[: message.batch_bytes])
            x = np.frombuffer(
                payload[message.batch_bytes :], dtype=self._executor.activation_dtype
            ).reshape(batch.num_rows, -1)
        except (TransportError, ValueError) as error:
            self._break(opened.spec, f"its input cannot be read: {error}")
            return
        opened.waiting.append(
            Work(
                opened.spec,
                message.stage_index,
                message.batch,
                batch,
                opened.page_map,
                x,
            )
        )

    def _take_sampled(self, message: Sampled) -> None:
        """The last stage finished a micro-batch of which we are the head."""
        opened = self._pipelines.get(message.pipeline)
        if opened is not None and opened.head is not None:
            try:
                opened.head.complete(message.batch, message.tokens, message.logprobs)
            except TransportError as error:
                self._break(opened.spec, str(error))
                return
            self._hand_on(opened)
            self._close_finished()

    def _kv_is_wanted(self) -> None:
        if self._config.moves_kv != "never":
            self.kv_wanted_ns = self._now_ns()

    def _broken(self, pipeline: PipelineId, reason: str) -> None:
        """A stage cannot go on, here or elsewhere: its KV is not to be relied on."""
        opened = self._pipelines.get(pipeline)
        if opened is not None:
            self._end(opened, reason, keeps_kv=False)

    def run_one(self) -> bool:
        """Runs one step of one stage; False if there was none to run.

        What other pipelines have waiting for the same blocks is run in the same step.
        """
        if self.deadline_ns is not None:
            self._expire(self._now_ns())
        for opened in list(self._pipelines.values()):
            self._start_moves(opened)
        works = self._turns.next_works()
        if works:
            self._run(works)
        return bool(works)

    def _expire(self, now_ns: int) -> None:
        self._mover.expire(now_ns)
        for opened in list(self._pipelines.values()):
            deadline_ns = opened.head.deadline_ns if opened.head else None
            if deadline_ns is not None and deadline_ns <= now_ns:
                self._break(opened.spec, "a stage does not say whether it has KV")

    def _start_moves(self, opened: OpenPipeline) -> None:
        """Has the stages of a replica get the KV that is to be moved there."""
        while opened.head and (command := opened.head.next_move()) is not None:
            for stage in _stages_to_tell(opened.spec):
                if stage.worker != self._worker:
                    self._outbox.send(stage, command, b"")
            self._mover.move(command, opened.spec, self._now_ns())

    def _move(self, command: MoveKv) -> None:
        """The head of a pipeline wants our stages of it to get KV."""
        opened = self._pipelines.get(command.pipeline)
        if opened is not None:  # Else the head is about to hear that it is closed.
            self._mover.move(command, opened.spec, self._now_ns())

    def _move_ended(self, spec: PipelineSpec, message: MoveEnded) -> None:
        """Tells the head, here or elsewhere."""
        if spec.head != self._worker:
            self._outbox.send(spec.stages[0], message, b"")
            return
        opened = self._pipelines.get(message.pipeline)
        if opened is not None and opened.head is not None:
            opened.head.move_ended(message)
            self._hand_on(opened)

    def _run(self, works: list[Work]) -> None:
        stage = works[0].stage
        try:
            batch, pages, x = merge(works)
            output = self._executor.run(
                stage.first_block, stage.num_blocks, batch, pages, x
            )
        except JscaleError as error:
            for work in works:
                self._break(work.spec, str(error))
            return
        end = 0
        for work in works:
            rows = slice(end, end := end + work.batch.num_rows)
            if work.is_refill:
                self._refilled(work)
            elif isinstance(output, SampledRows):
                self._answer(work, output.tokens[rows], output.logprobs[rows])
            else:
                self._pass_on(work, output[rows])

    def _refilled(self, work: Work) -> None:
        opened = self._pipelines.get(work.spec.pipeline)
        if opened is not None and opened.head is not None:
            opened.head.refilled(work.batch_id)
            self._hand_on(opened)

    def _answer(
        self,
        work: Work,
        tokens: npt.NDArray[np.int32],
        logprobs: npt.NDArray[np.float32],
    ) -> None:
        """Gives the head what the last stage sampled."""
        sampled = Sampled(
            pipeline=work.spec.pipeline,
            batch=work.batch_id,
            tokens=tuple(tokens.tolist()),
            logprobs=tuple(logprobs.tolist()),
        )
        if work.spec.head == self._worker:
            self._take_sampled(sampled)
        else:
            self._outbox.send(work.spec.stages[0], sampled, b"")

    def _pass_on(self, work: Work, x: npt.NDArray[Any]) -> None:
        index = work.stage_index + 1
        stage = work.spec.stages[index]
        opened = self._pipelines.get(work.spec.pipeline)
        if stage.worker == self._worker and opened is not None:
            opened.waiting.append(dataclasses.replace(work, stage_index=index, x=x))
            return
        batch = work.batch.to_bytes()
        message = StageInput(work.spec.pipeline, index, work.batch_id, len(batch))
        self._outbox.send(stage, message, batch + x.tobytes())

    def _break(self, spec: PipelineSpec, reason: str) -> None:
        """Close here, and tell the others, who would wait for ever."""
        broken = PipelineBroken(spec.pipeline, reason)
        for stage in _stages_to_tell(spec):
            if stage.worker != self._worker:
                self._outbox.send(stage, broken, b"")
        self._broken(spec.pipeline, reason)

    def _close_finished(self) -> None:
        for opened in list(self._pipelines.values()):
            if opened.head and opened.head.is_finished:
                self.close(opened.spec.pipeline, "finished")


def _stages_to_tell(spec: PipelineSpec) -> list[StageSpec]:
    """One stage of each worker: what is told to it concerns all that it runs."""
    return list({stage.worker: stage for stage in spec.stages}.values())
