"""The manager's book of pipelines: from opening to closing, adopted ones too."""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping

from jscale.cluster.effects import Effect, TellWorker
from jscale.cluster.messages import ClosePipeline, OpenPipeline
from jscale.cluster.records import PipelineRecord, WorkerRecord
from jscale.core.ids import PipelineId, WorkerId
from jscale.pipeline.messages import PipelineSpec, StageSpec
from jscale.plan.execution import ExecutionPipeline, Stage

OPEN_TIMEOUT_NS = 30_000_000_000
"""A pipeline that is not open by then is closed and proposed again."""


class PipelineBook:
    """Owns the records of all pipelines. Part of a `ManagerState`, pure like it."""

    def __init__(
        self,
        workers: Mapping[WorkerId, WorkerRecord],
        emit: Callable[[Effect], None],
        first_id: int = 0,
    ) -> None:
        """A book without pipelines; `workers` are those attached, kept up to date.

        Pipelines are numbered from after `first_id`.
        """
        self._workers = workers
        self._emit = emit
        self._records: dict[PipelineId, PipelineRecord] = {}
        self._closed: set[PipelineId] = set()
        self._next = first_id + 1

    def __iter__(self) -> Iterator[PipelineRecord]:
        return iter(list(self._records.values()))

    def find(self, pipeline: PipelineId) -> PipelineRecord | None:
        """The record, unless the pipeline is closed."""
        return self._records.get(pipeline)

    def open(
        self,
        pipeline: ExecutionPipeline,
        serves: frozenset[WorkerId],
        *,
        num_pages: int,
        continues: PipelineId | None,
        now_ns: int,
    ) -> None:
        """Has every worker of the pipeline get its stages ready."""
        stages = tuple(
            StageSpec(
                worker=stage.worker,
                address=self._workers[stage.worker].data_address,
                first_block=stage.first_block,
                num_blocks=stage.num_blocks,
            )
            for stage in pipeline.stages
        )
        spec = PipelineSpec(PipelineId(self._next), stages, num_pages, continues)
        self._add(spec, pipeline, serves, now_ns)
        for worker in spec.workers:
            self._emit(TellWorker(worker, OpenPipeline(spec)))

    def adopt(self, worker: WorkerId, spec: PipelineSpec, now_ns: int) -> None:
        """Takes over a pipeline that a worker still runs: the manager was restarted.

        Or the worker was out of sight, and others have closed it meanwhile: then it is
        closed there too. For whose sake it was opened is not known any more; its head
        is a good guess, as a target that holds the first blocks is the head.
        """
        if spec.pipeline in self._closed and len(spec.workers) > 1:
            why = f"closed while {worker} was out of sight"
            self._emit(TellWorker(worker, ClosePipeline(spec.pipeline, why)))
            return
        if spec.pipeline not in self._records:
            pipeline = ExecutionPipeline(
                tuple(Stage(s.worker, s.first_block, s.num_blocks) for s in spec.stages)
            )
            self._add(spec, pipeline, frozenset({spec.head}), now_ns)
        self.opened(worker, spec.pipeline)

    def opened(self, worker: WorkerId, pipeline: PipelineId) -> None:
        """The worker has its stages ready."""
        if pipeline in self._records:
            record = self._records[pipeline]
            self._records[pipeline] = dataclasses.replace(
                record, opened_by=record.opened_by | {worker}
            )

    def closed(self, worker: WorkerId, pipeline: PipelineId, reason: str) -> None:
        """The worker holds nothing of it any more: it is closed everywhere."""
        record = self._records.get(pipeline)
        if record is not None:
            self.close(record, reason)
        if record := self._records.get(pipeline):
            self._records[pipeline] = dataclasses.replace(
                record, closed_by=record.closed_by | {worker}
            )
            self._forget_if_closed(pipeline)

    def close(
        self, record: PipelineRecord, reason: str, *, finish: bool = False
    ) -> None:
        """Has every worker close it; it is forgotten when all that live have."""
        pipeline = record.spec.pipeline
        if not record.is_closing:
            self._records[pipeline] = dataclasses.replace(record, is_closing=True)
            self._closed.add(pipeline)
            for worker in record.spec.workers:
                if worker in self._workers:
                    command = ClosePipeline(
                        pipeline, reason, finish, self._continued_by(pipeline)
                    )
                    self._emit(TellWorker(worker, command))
        self._forget_if_closed(pipeline)

    def close_late(self, now_ns: int) -> None:
        """Closes those that are not open in time."""
        for record in self:
            waits = not record.is_open and not record.is_closing
            if waits and now_ns >= record.deadline_ns:
                self.close(record, "its workers were not ready in time")

    def superseded(self, leaving: Collection[WorkerId]) -> list[PipelineRecord]:
        """Those that newer ones serve instead, or that use a worker that leaves."""
        newest: dict[WorkerId, PipelineId] = {}
        for record in self:
            if record.is_open:
                for worker in record.serves:
                    pipeline = record.spec.pipeline
                    newest[worker] = max(newest.get(worker, pipeline), pipeline)
        return [
            record
            for record in self
            if not record.is_closing
            and (
                not set(leaving).isdisjoint(record.spec.workers)
                or any(
                    record.spec.pipeline < newest.get(worker, record.spec.pipeline)
                    for worker in record.serves
                )
            )
        ]

    def _continued_by(self, pipeline: PipelineId) -> PipelineId | None:
        """The open pipeline that takes the sequences over, if there is one."""
        for record in self:
            if record.is_open and record.spec.continues == pipeline:
                return record.spec.pipeline
        return None

    def _add(
        self,
        spec: PipelineSpec,
        pipeline: ExecutionPipeline,
        serves: frozenset[WorkerId],
        now_ns: int,
    ) -> None:
        self._next = max(self._next, spec.pipeline + 1)
        self._records[spec.pipeline] = PipelineRecord(
            spec=spec,
            pipeline=pipeline,
            serves=serves,
            opened_by=frozenset(),
            closed_by=frozenset(),
            deadline_ns=now_ns + OPEN_TIMEOUT_NS,
        )

    def _forget_if_closed(self, pipeline: PipelineId) -> None:
        record = self._records.get(pipeline)
        if record is not None and record.is_closing:
            alive = {w for w in record.spec.workers if w in self._workers}
            if record.closed_by >= alive:
                del self._records[pipeline]
