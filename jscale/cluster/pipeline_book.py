"""The manager's book of pipelines: from opening to closing, adopted ones too."""

from collections.abc import Callable, Iterator, Mapping

import msgspec

from jscale.cluster.effects import Effect, TellWorker
from jscale.cluster.messages import ClosePipeline, OpenPipeline
from jscale.cluster.records import PipelineRecord, WorkerRecord
from jscale.core.ids import PipelineId, WorkerId
from jscale.pipeline.messages import PipelineSpec, StageSpec
from jscale.plan.execution import ExecutionPipeline, Stage

OPEN_TIMEOUT_NS = 30_000_000_000
"""A pipeline that is not open by then is closed and proposed again."""


class PipelineBook:
    """Owns the records of all pipelines. Part of a `ManagerState`, pure like it.

    A pipeline is *published* while gateways may send to it: from the moment when all
    its workers have it open until it is superseded, uses a worker that leaves, or
    closes. What changed is collected for `take_changes`. Every event costs as much as
    the workers of the pipelines that it is about.
    """

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
        self._first_id = first_id
        self._next = first_id + 1
        self._records: dict[PipelineId, PipelineRecord] = {}
        self._using: dict[WorkerId, dict[PipelineId, None]] = {}
        self._serving: dict[WorkerId, dict[PipelineId, None]] = {}
        self._unopened: dict[PipelineId, None] = {}
        self._open: dict[PipelineId, None] = {}
        self._published: dict[PipelineId, None] = {}
        self._retiring: dict[PipelineId, None] = {}
        self._closed_of_others: set[PipelineId] = set()
        self._news: dict[PipelineId, bool] = {}
        self.version = 0
        """Counts what could make other pipelines worth opening."""

    def __iter__(self) -> Iterator[PipelineRecord]:
        return iter(list(self._records.values()))

    def find(self, pipeline: PipelineId) -> PipelineRecord | None:
        """The record, unless the pipeline is closed."""
        return self._records.get(pipeline)

    def using(self, worker: WorkerId) -> list[PipelineRecord]:
        """Those of which the worker runs a stage, closing ones too."""
        return [self._records[each] for each in self._using.get(worker, ())]

    def serving(self, worker: WorkerId) -> list[PipelineRecord]:
        """Those opened for the worker's sake, oldest first, but not closing ones."""
        found = (self._records[each] for each in self._serving.get(worker, ()))
        return [record for record in found if not record.is_closing]

    @property
    def opened_now(self) -> list[PipelineRecord]:
        """Those that every worker has open."""
        return [self._records[each] for each in self._open]

    @property
    def published(self) -> list[PipelineRecord]:
        """Those that gateways may send to."""
        return [self._records[each] for each in self._published]

    def take_changes(self) -> tuple[list[PipelineRecord], list[PipelineId]]:
        """What was published, and what is not any more, since the last call."""
        opened = [
            self._records[each] for each, is_open in self._news.items() if is_open
        ]
        closed = [each for each, is_open in self._news.items() if not is_open]
        self._news.clear()
        return opened, closed

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
        self._next += 1
        self._add(spec, pipeline, serves, now_ns)
        for worker in spec.workers:
            self._emit(TellWorker(worker, OpenPipeline(spec)))

    def adopt(self, worker: WorkerId, spec: PipelineSpec, now_ns: int) -> None:
        """Takes over a pipeline that a worker still runs: the manager was restarted.

        Or the worker was out of sight, and others have closed it meanwhile: then it is
        closed there too. For whose sake it was opened is not known any more; its head
        is a good guess, as a target that holds the first blocks is the head.
        """
        pipeline = spec.pipeline
        known = self._records.get(pipeline)
        if known is None:
            is_ours = self._first_id < pipeline < self._next
            was_closed = is_ours or pipeline in self._closed_of_others
        else:
            was_closed = known.is_closing
        if was_closed and not spec.is_local:
            why = f"closed while {worker} was out of sight"
            self._emit(TellWorker(worker, ClosePipeline(pipeline, why)))
            return
        if known is None:
            stages = tuple(
                Stage(s.worker, s.first_block, s.num_blocks) for s in spec.stages
            )
            cut = ExecutionPipeline(stages)
            self._add(spec, cut, frozenset({spec.head}), now_ns)
        self.opened(worker, pipeline)

    def opened(self, worker: WorkerId, pipeline: PipelineId) -> None:
        """The worker has its stages ready."""
        record = self._records.get(pipeline)
        if record is None or worker not in record.spec.workers:
            return
        was_open = record.is_open
        record = msgspec.structs.replace(record, opened_by=record.opened_by | {worker})
        self._records[pipeline] = record
        if record.is_open and not was_open:
            self._has_opened(record)

    def closed(self, worker: WorkerId, pipeline: PipelineId, reason: str) -> None:
        """The worker holds nothing of it any more: it is closed everywhere."""
        record = self._records.get(pipeline)
        if record is not None:
            self.close(record, reason)
        if record := self._records.get(pipeline):
            self._records[pipeline] = msgspec.structs.replace(
                record, closed_by=record.closed_by | {worker}
            )
            self._forget_if_closed(pipeline)

    def close(
        self, record: PipelineRecord, reason: str, *, finish: bool = False
    ) -> None:
        """Has every worker close it; it is forgotten when all that live have."""
        pipeline = record.spec.pipeline
        if not record.is_closing:
            self.version += 1
            self._records[pipeline] = msgspec.structs.replace(record, is_closing=True)
            self._withdraw(pipeline)
            for members in (self._unopened, self._open, self._retiring):
                members.pop(pipeline, None)
            if pipeline <= self._first_id:
                self._closed_of_others.add(pipeline)
            continued_by = self._continued_by(record)
            for worker in record.spec.workers:
                if worker in self._workers:
                    command = ClosePipeline(pipeline, reason, finish, continued_by)
                    self._emit(TellWorker(worker, command))
        self._forget_if_closed(pipeline)

    def close_late(self, now_ns: int) -> None:
        """Closes those that are not open in time."""
        for pipeline in list(self._unopened):
            record = self._records[pipeline]
            if now_ns >= record.deadline_ns:
                self.close(record, "its workers were not ready in time")

    def withdraw_from(self, worker: WorkerId) -> None:
        """The worker leaves: what uses it is to be closed."""
        for record in self.using(worker):
            if not record.is_closing:
                self._supersede(record.spec.pipeline)

    def retire(self) -> None:
        """Closes what newer pipelines serve instead, or what uses a leaving worker.

        Call it after what changed was told to gateways, who then send nothing more.
        """
        for pipeline in list(self._retiring):
            record = self._records[pipeline]
            # Nobody can take over from a last replica: it ends what it has by itself.
            is_last = len(self._open) == (pipeline in self._open)
            finish = record.spec.is_local and is_last
            self.close(record, "superseded or leaving", finish=finish)

    def _has_opened(self, record: PipelineRecord) -> None:
        pipeline = record.spec.pipeline
        self.version += 1
        self._unopened.pop(pipeline, None)
        self._open[pipeline] = None
        self._published[pipeline] = None
        self._news[pipeline] = True
        is_leaving = any(
            worker in self._workers and self._workers[worker].is_leaving
            for worker in record.spec.workers
        )
        if is_leaving:
            self._supersede(pipeline)
        for worker in sorted(record.serves):
            for other in self.serving(worker):
                if other.spec.pipeline < pipeline:
                    self._supersede(other.spec.pipeline)
                elif other.spec.pipeline > pipeline and other.is_open:
                    self._supersede(pipeline)

    def _supersede(self, pipeline: PipelineId) -> None:
        self._retiring[pipeline] = None
        self._withdraw(pipeline)

    def _withdraw(self, pipeline: PipelineId) -> None:
        if pipeline in self._published:
            del self._published[pipeline]
            if self._news.get(pipeline):
                del self._news[pipeline]  # Nobody was told of it yet.
            else:
                self._news[pipeline] = False

    def _continued_by(self, record: PipelineRecord) -> PipelineId | None:
        """The open pipeline that takes the sequences over, if there is one."""
        for worker in sorted(record.serves):
            for other in self.serving(worker):
                if other.is_open and other.spec.continues == record.spec.pipeline:
                    return other.spec.pipeline
        return None

    def _add(
        self,
        spec: PipelineSpec,
        pipeline: ExecutionPipeline,
        serves: frozenset[WorkerId],
        now_ns: int,
    ) -> None:
        self.version += 1
        self._records[spec.pipeline] = PipelineRecord(
            spec=spec,
            pipeline=pipeline,
            serves=serves,
            opened_by=frozenset(),
            closed_by=frozenset(),
            deadline_ns=now_ns + OPEN_TIMEOUT_NS,
        )
        self._unopened[spec.pipeline] = None
        for worker in spec.workers:
            self._using.setdefault(worker, {})[spec.pipeline] = None
        for worker in serves:
            self._serving.setdefault(worker, {})[spec.pipeline] = None

    def _forget_if_closed(self, pipeline: PipelineId) -> None:
        record = self._records.get(pipeline)
        if record is None or not record.is_closing:
            return
        alive = {w for w in record.spec.workers if w in self._workers}
        if record.closed_by >= alive:
            self.version += 1
            del self._records[pipeline]
            for index, workers in (
                (self._using, record.spec.workers),
                (self._serving, record.serves),
            ):
                for worker in workers:
                    index[worker].pop(pipeline, None)
                    if not index[worker]:
                        del index[worker]
