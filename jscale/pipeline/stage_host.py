"""All that one worker runs: its stages of every pipeline, and the heads among them.

A worker has one device and hence one order of work. The local replica and the pipelines
that the worker is a stage of take turns, one step each, so that however many targets a
source helps, its own sequences keep half of its time; and pipelines take turns among
themselves.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jscale.core.errors import JscaleError, TransportError, UnavailableError
from jscale.core.ids import PipelineId, SequenceId, WorkerId
from jscale.engine.batch import StepBatch
from jscale.engine.config import EngineConfig
from jscale.engine.executor import SampledRows, StageExecutor
from jscale.engine.pages import PagePool
from jscale.pipeline.head import Head
from jscale.pipeline.lease import Lease
from jscale.pipeline.messages import (
    PipelineBroken,
    PipelineSpec,
    Returned,
    Sampled,
    StageInput,
    Submit,
)
from jscale.pipeline.outbox import Outbox
from jscale.pipeline.work import Work, merge


@dataclasses.dataclass
class _OpenPipeline:
    """A pipeline that has stages here."""

    spec: PipelineSpec
    lease: Lease
    head: Head | None
    waiting: collections.deque[Work]
    continued_by: PipelineId | None = None


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
    ) -> None:
        self._worker = worker
        self._config = config
        self._executor = executor
        self._outbox = outbox
        self._eos_token_ids = eos_token_ids
        self._pool = PagePool(config.num_pages)
        self._pipelines: dict[PipelineId, _OpenPipeline] = {}
        self._turns: collections.deque[PipelineId] = collections.deque()
        self._is_local_turn = True

    @property
    def num_sequences(self) -> int:
        """Sequences of which this worker is the head."""
        return sum(p.head.num_sequences for p in self._pipelines.values() if p.head)

    def open(self, spec: PipelineSpec) -> None:
        """Leases the pages of a pipeline's stages here, or shares those it continues.

        Raises:
          OverloadedError: too few pages are free.
          UnavailableError: the pipeline that it continues is gone.
        """
        assert spec.pipeline not in self._pipelines, spec
        if spec.continues is None:
            lease = Lease(self._pool, spec.num_pages)
        elif spec.continues in self._pipelines:
            lease = self._pipelines[spec.continues].lease
        else:
            raise UnavailableError(
                f"pipeline {spec.continues}, which {spec.pipeline} continues, is gone: "
                f"open one that starts anew"
            )
        lease.num_users += 1
        head = None
        if spec.head == self._worker:
            head = Head(spec, self._config, self._outbox, self._eos_token_ids)
        self._pipelines[spec.pipeline] = _OpenPipeline(
            spec=spec,
            lease=lease,
            head=head,
            waiting=collections.deque(),
        )
        self._turns.append(spec.pipeline)

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
        self._end(opened, reason)

    def _end(self, opened: _OpenPipeline, reason: str) -> None:
        pipeline = opened.spec.pipeline
        del self._pipelines[pipeline]
        self._turns.remove(pipeline)
        self._release(opened.lease)
        if opened.head:
            opened.head.give_back(reason)
        self._outbox.closed(pipeline, reason)
        for other in list(self._pipelines.values()):
            if other.continued_by == pipeline:  # It waited for this one.
                self._end(other, reason)
            elif other.spec.continues == pipeline and other.head:
                other.head.take_over(None)

    def _hand_on(self, opened: _OpenPipeline) -> None:
        """Gives the sequences to the next head once nothing is in flight."""
        newer = self._pipelines.get(opened.continued_by or PipelineId(0))
        if newer is None or opened.head is None or not opened.head.is_drained:
            return
        assert newer.head is not None, newer.spec
        newer.head.take_over(opened.head)
        opened.head = None
        self._end(opened, "continued")
        self._hand_on(newer)  # It may have been superseded while it waited.

    def break_with(self, peer: WorkerId) -> None:
        """Closes every pipeline that a lost worker was part of."""
        for opened in list(self._pipelines.values()):
            if peer in opened.spec.workers:
                self.close(opened.spec.pipeline, f"{peer} is lost")

    def submit(self, gateway: str, command: Submit) -> None:
        """Takes a sequence on, or returns it if its replica is gone."""
        opened = self._pipelines.get(command.pipeline)
        if opened is None or opened.head is None:
            gone = Returned(command.sequence, command.attempt, "the replica is closed")
            self._outbox.emit(gateway, (gone,))
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

    def take_input(self, message: StageInput, payload: memoryview) -> None:
        """A micro-batch arrived for a stage here; dropped if that is closed."""
        opened = self._pipelines.get(message.pipeline)
        if opened is None:
            return
        older = self._pipelines.get(opened.spec.continues or PipelineId(0))
        if older is not None and older.continued_by is not None:
            assert not older.waiting, "its head hands on when nothing is in flight"
            self._end(older, "continued")
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
                opened.lease.page_map,
                x,
            )
        )

    def take_sampled(self, message: Sampled) -> None:
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

    def take_broken(self, message: PipelineBroken) -> None:
        """Another stage cannot go on."""
        self.close(message.pipeline, message.reason)

    def run_one(self) -> bool:
        """Runs one step of one stage; False if there was none to run.

        What other pipelines have waiting for the same blocks is run in the same step.
        """
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
                    self._run([work, *self._take_fitting(work)])
                    return True
        return False

    def _next_work(self, opened: _OpenPipeline) -> Work | None:
        """What has come furthest goes first: it frees the pipeline soonest."""
        if opened.waiting:
            return opened.waiting.popleft()
        scheduled = opened.head.next_batch() if opened.head else None
        if scheduled is None:
            return None
        return Work(
            opened.spec,
            0,
            scheduled.id,
            scheduled.batch,
            opened.lease.page_map,
            None,
            scheduled.is_refill,
        )

    def _take_fitting(self, work: Work) -> list[Work]:
        """All that waits for the same blocks, as far as a step has room."""
        taken: list[Work] = []
        num_rows = work.batch.num_rows
        for pipeline in self._turns:
            waiting = self._pipelines[pipeline].waiting
            while waiting and waiting[0].fits(work):
                num_rows += waiting[0].batch.num_rows
                if num_rows > self._config.row_buckets[-1]:
                    return taken
                taken.append(waiting.popleft())
        return taken

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

    def _release(self, lease: Lease) -> None:
        lease.num_users -= 1
        if not lease.num_users:
            self._pool.release(lease.pages)

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
            self.take_sampled(sampled)
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
        told = {self._worker}
        for stage in spec.stages:
            if stage.worker not in told:
                told.add(stage.worker)
                self._outbox.send(stage, broken, b"")
        self.close(spec.pipeline, reason)

    def _close_finished(self) -> None:
        for opened in list(self._pipelines.values()):
            if opened.head and opened.head.is_finished:
                self.close(opened.spec.pipeline, "finished")
