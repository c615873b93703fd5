"""The manager as a pure state machine: `step(event, now_ns)` returns effects.

What is wanted (a number of workers) and what is there (attached workers, their blocks,
transfers under way, pipelines) are compared after every event, and the difference
becomes effects. There is no other logic: a fault is a difference like any other.
"""

import dataclasses

from jscale.cluster import events, messages
from jscale.cluster.decisions import (
    choose_disk_loader,
    choose_leavers,
    choose_pipelines,
    choose_transfers,
    lease_pages,
)
from jscale.cluster.effects import Effect, TellGateways, TellLauncher, TellWorker
from jscale.cluster.records import PipelineRecord, TransferRecord, WorkerRecord
from jscale.cluster.status import describe_replicas, describe_status
from jscale.core.ids import PipelineId, PlanId, WorkerId
from jscale.pipeline.messages import PipelineSpec, StageSpec
from jscale.plan.execution import ExecutionPipeline, ExecutionPolicy, Stage

OPEN_TIMEOUT_NS = 30_000_000_000
"""A pipeline that is not open by then is closed and proposed again."""

RETRY_NS = 500_000_000
"""How long a worker whose transfer or load failed waits for the next try."""

LAUNCH_TIMEOUT_NS = 60_000_000_000
"""A worker process that has not attached by then is given up."""


@dataclasses.dataclass(frozen=True)
class ManagerPolicy:
    """How the manager chooses."""

    execution: ExecutionPolicy = dataclasses.field(default_factory=ExecutionPolicy)
    multicast_kind: str = "binomial"


class ManagerState:
    """Owns the soft state of one model's cluster; rebuilt from what workers report.

    Owned by the manager's event loop.
    """

    def __init__(
        self,
        spec: messages.ModelSpec,
        *,
        model_path: str,
        num_workers: int | None,
        policy: ManagerPolicy | None = None,
    ) -> None:
        self._spec = spec
        self._model_path = model_path
        self._num_wanted = num_workers
        self._policy = policy or ManagerPolicy()
        self._workers: dict[WorkerId, WorkerRecord] = {}
        self._transfers: dict[PlanId, TransferRecord] = {}
        self._pipelines: dict[PipelineId, PipelineRecord] = {}
        self._launching: dict[WorkerId, int] = {}
        self._has_launcher = False
        self._next_worker = 0
        self._next_plan = 1
        self._next_pipeline = 1
        self._note = ""
        self._effects: list[Effect] = []
        self._last_told: dict[str, messages.GatewayCommand] = {}

    def step(self, event: events.Event, now_ns: int) -> list[Effect]:
        """The effects of one event, in the order to carry them out."""
        match event:
            case events.WorkerAttached(hello):
                self._attach(hello, now_ns)
            case events.WorkerDetached(worker):
                self._detach(worker)
            case events.WorkerReported(worker, report):
                if worker in self._workers:
                    self._report(worker, report, now_ns)
            case events.WorkerProcessEnded(worker, exit_code):
                if self._launching.pop(worker, None) is not None:
                    self._note = f"{worker} ended at start, exit code {exit_code}"
            case events.LauncherAttached():
                self._has_launcher = True
            case events.LauncherDetached():
                self._has_launcher = False
                self._launching.clear()
            case events.ScaleRequested(num_workers):
                self._num_wanted = num_workers
            case events.Ticked():
                self._expire(now_ns)
        self._reconcile(now_ns)
        effects, self._effects = self._effects, []
        return effects

    # --- what happened ---------------------------------------------------------

    def _attach(self, hello: messages.WorkerHello, now_ns: int) -> None:
        if hello.worker in self._workers:
            self._detach(hello.worker)
        was_ours = self._launching.pop(hello.worker, None) is not None
        self._workers[hello.worker] = WorkerRecord(
            worker=hello.worker,
            data_address=hello.data_address,
            serve_address=hello.serve_address,
            attached_ns=now_ns,
            blocks=frozenset(hello.blocks),
            bundle=hello.bundle,
            has_executables=hello.has_executables,
            has_all_executables=hello.has_all_executables,
            can_load_from_disk=hello.can_load_from_disk,
        )
        number = hello.worker.removeprefix("w")
        if number.isdigit():
            self._next_worker = max(self._next_worker, int(number) + 1)
        if self._num_wanted is not None and not was_ours:
            self._num_wanted = max(self._num_wanted, len(self._staying()))
        self._tell(hello.worker, messages.Welcome(self._spec))
        for spec in hello.pipelines:
            self._adopt(hello.worker, spec, now_ns)

    def _adopt(self, worker: WorkerId, spec: PipelineSpec, now_ns: int) -> None:
        """Take over a pipeline that a worker still runs: we were restarted."""
        record = self._pipelines.get(spec.pipeline)
        self._next_pipeline = max(self._next_pipeline, spec.pipeline + 1)
        if record is None:
            pipeline = ExecutionPipeline(
                tuple(Stage(s.worker, s.first_block, s.num_blocks) for s in spec.stages)
            )
            record = PipelineRecord(
                spec=spec,
                pipeline=pipeline,
                serves=frozenset({spec.head}),
                opened_by=frozenset(),
                closed_by=frozenset(),
                deadline_ns=now_ns + OPEN_TIMEOUT_NS,
            )
        self._pipelines[spec.pipeline] = dataclasses.replace(
            record, opened_by=record.opened_by | {worker}
        )

    def _detach(self, worker: WorkerId) -> None:
        self._workers.pop(worker, None)
        for transfer in list(self._transfers.values()):
            if worker in transfer.members:
                self._cancel(transfer)
        for record in list(self._pipelines.values()):
            if record.uses(worker):
                self._close(record, f"{worker} is lost")

    def _report(
        self, worker: WorkerId, report: messages.WorkerReport, now_ns: int
    ) -> None:
        record = self._workers[worker]
        match report:
            case messages.BlockReady(block):
                is_loading = record.is_loading
                blocks = record.blocks | {block}
                if len(blocks) == self._spec.num_blocks:
                    is_loading = False
                self._update(worker, blocks=blocks, is_loading=is_loading)
            case messages.ExecutablesReady():
                self._update(
                    worker,
                    has_executables=True,
                    has_all_executables=report.is_complete,
                    bundle=report.bundle,
                )
            case messages.TransferProgressed():
                self._update(
                    worker,
                    received_bytes=report.received_bytes,
                    bytes_per_s=report.bytes_per_s,
                )
            case messages.TransferEnded(plan, missing_chunks):
                self._end_transfer(worker, plan, missing_chunks, now_ns)
            case messages.LoadFailed(reason):
                self._note = f"{worker} could not load the model: {reason}"
                self._update(
                    worker, is_loading=False, retry_after_ns=now_ns + 10 * RETRY_NS
                )
            case messages.LeaveRequested():
                self._update(worker, is_leaving=True)
                if self._num_wanted is not None:
                    self._num_wanted = min(self._num_wanted, len(self._staying()))
            case _:
                self._report_pipeline(worker, report)

    def _report_pipeline(self, worker: WorkerId, report: messages.WorkerReport) -> None:
        match report:
            case messages.PipelineOpened(pipeline):
                if pipeline in self._pipelines:
                    record = self._pipelines[pipeline]
                    self._pipelines[pipeline] = dataclasses.replace(
                        record, opened_by=record.opened_by | {worker}
                    )
            case messages.PipelineRefused(pipeline, reason):
                if pipeline in self._pipelines:
                    self._close(self._pipelines[pipeline], reason)
                    self._closed(worker, pipeline)
            case messages.PipelineClosed(pipeline, reason):
                if pipeline in self._pipelines:
                    self._close(self._pipelines[pipeline], reason or "closed")
                    self._closed(worker, pipeline)
            case messages.PeerLost(peer):
                for record in list(self._pipelines.values()):
                    if record.uses(worker) and record.uses(peer):
                        self._close(record, f"{worker} lost sight of {peer}")

    def _end_transfer(
        self, worker: WorkerId, plan: PlanId, missing_chunks: int, now_ns: int
    ) -> None:
        transfer = self._transfers.get(plan)
        if transfer is None or worker not in transfer.pending:
            return
        pending = transfer.pending - {worker}
        if missing_chunks:
            self._update(worker, retry_after_ns=now_ns + RETRY_NS)
        self._update(worker, bytes_per_s=0.0)
        if pending:
            self._transfers[plan] = dataclasses.replace(transfer, pending=pending)
        else:
            del self._transfers[plan]

    def _expire(self, now_ns: int) -> None:
        for worker, deadline_ns in list(self._launching.items()):
            if now_ns >= deadline_ns:
                del self._launching[worker]
                self._note = f"{worker} was started but never attached"
        for record in list(self._pipelines.values()):
            waits = not record.is_open and not record.is_closing
            if waits and now_ns >= record.deadline_ns:
                self._close(record, "its workers were not ready in time")

    # --- what follows ------------------------------------------------------------

    def _reconcile(self, now_ns: int) -> None:
        self._reconcile_number(now_ns)
        self._reconcile_holdings(now_ns)
        self._reconcile_pipelines(now_ns)
        self._publish()
        self._retire()

    def _reconcile_number(self, now_ns: int) -> None:
        if self._num_wanted is None:
            return
        missing = self._num_wanted - len(self._staying()) - len(self._launching)
        for _ in range(missing if self._has_launcher else 0):
            worker = WorkerId(f"w{self._next_worker}")
            self._next_worker += 1
            self._launching[worker] = now_ns + LAUNCH_TIMEOUT_NS
            self._effects.append(TellLauncher(messages.LaunchWorker(worker)))
        for worker in choose_leavers(
            self._workers,
            num_blocks=self._spec.num_blocks,
            num_wanted=self._num_wanted,
        ):
            self._update(worker, is_leaving=True)

    def _reconcile_holdings(self, now_ns: int) -> None:
        loader = choose_disk_loader(
            self._workers, num_blocks=self._spec.num_blocks, now_ns=now_ns
        )
        if loader is not None:
            self._update(loader, is_loading=True)
            self._tell(loader, messages.LoadFromDisk(self._model_path))
        for source, targets in choose_transfers(
            self._workers,
            self._transfers.values(),
            num_blocks=self._spec.num_blocks,
            num_launching=len(self._launching),
            now_ns=now_ns,
        ):
            plan = PlanId(self._next_plan)
            self._next_plan += 1
            self._transfers[plan] = TransferRecord(plan, source, frozenset(targets))
            command = messages.JoinMulticast(
                plan=plan,
                kind=self._policy.multicast_kind,
                members=tuple(self._workers[w].member for w in (source, *targets)),
                bundle=self._workers[source].bundle,
            )
            for worker in (source, *targets):
                self._tell(worker, command)

    def _reconcile_pipelines(self, now_ns: int) -> None:
        for pipeline, serves in choose_pipelines(
            self._workers,
            self._pipelines.values(),
            num_blocks=self._spec.num_blocks,
            policy=self._policy.execution,
        ):
            spec = PipelineSpec(
                pipeline=PipelineId(self._next_pipeline),
                stages=tuple(
                    StageSpec(
                        worker=stage.worker,
                        address=self._workers[stage.worker].data_address,
                        first_block=stage.first_block,
                        num_blocks=stage.num_blocks,
                    )
                    for stage in pipeline.stages
                ),
                num_pages=lease_pages(self._spec.engine, is_local=pipeline.is_local),
            )
            self._next_pipeline += 1
            self._pipelines[spec.pipeline] = PipelineRecord(
                spec=spec,
                pipeline=pipeline,
                serves=serves,
                opened_by=frozenset(),
                closed_by=frozenset(),
                deadline_ns=now_ns + OPEN_TIMEOUT_NS,
            )
            for worker in spec.workers:
                self._tell(worker, messages.OpenPipeline(spec))

    def _publish(self) -> None:
        """Tell gateways what is open, leaving out what is about to be retired."""
        retiring = {record.spec.pipeline for record in self._superseded()}
        self._tell_gateways(
            describe_replicas(
                self._spec, self._workers, self._pipelines.values(), retiring
            )
        )
        self._tell_gateways(
            describe_status(
                self._spec,
                self._workers,
                self._pipelines.values(),
                num_wanted=self._num_wanted,
                note=self._missing_note() or self._note,
            )
        )

    def _retire(self) -> None:
        """Close what newer pipelines supersede, and let those leave who are free."""
        for record in self._superseded():
            is_last = not any(
                other.is_open and other is not record
                for other in self._pipelines.values()
            )
            self._close(record, "superseded or leaving", finish=is_last)
        for worker, leaver in list(self._workers.items()):
            is_used = any(record.uses(worker) for record in self._pipelines.values())
            if leaver.is_leaving and not leaver.is_dismissed and not is_used:
                for transfer in list(self._transfers.values()):
                    if worker in transfer.members:
                        self._cancel(transfer)
                self._update(worker, is_dismissed=True)
                self._tell(worker, messages.Leave("fewer workers are wanted"))

    def _superseded(self) -> list[PipelineRecord]:
        newest: dict[WorkerId, PipelineId] = {}
        for record in self._pipelines.values():
            if record.is_open:
                for worker in record.serves:
                    pipeline = record.spec.pipeline
                    newest[worker] = max(newest.get(worker, pipeline), pipeline)
        leaving = {r.worker for r in self._workers.values() if r.is_leaving}
        return [
            record
            for record in self._pipelines.values()
            if not record.is_closing
            and (
                leaving & set(record.spec.workers)
                or any(
                    record.spec.pipeline < newest.get(worker, record.spec.pipeline)
                    for worker in record.serves
                )
            )
        ]

    # --- small acts --------------------------------------------------------------

    def _close(
        self, record: PipelineRecord, reason: str, *, finish: bool = False
    ) -> None:
        pipeline = record.spec.pipeline
        if record.is_closing:
            self._forget_if_closed(pipeline)
            return
        self._pipelines[pipeline] = dataclasses.replace(record, is_closing=True)
        for worker in record.spec.workers:
            if worker in self._workers:
                self._tell(worker, messages.ClosePipeline(pipeline, reason, finish))
        self._forget_if_closed(pipeline)

    def _closed(self, worker: WorkerId, pipeline: PipelineId) -> None:
        if pipeline in self._pipelines:
            record = self._pipelines[pipeline]
            self._pipelines[pipeline] = dataclasses.replace(
                record, closed_by=record.closed_by | {worker}
            )
            self._forget_if_closed(pipeline)

    def _forget_if_closed(self, pipeline: PipelineId) -> None:
        record = self._pipelines[pipeline]
        alive = {worker for worker in record.spec.workers if worker in self._workers}
        if record.closed_by >= alive:
            del self._pipelines[pipeline]

    def _cancel(self, transfer: TransferRecord) -> None:
        del self._transfers[transfer.plan]
        for worker in sorted(transfer.members):
            if worker in self._workers:
                self._tell(worker, messages.CancelMulticast(transfer.plan))
                self._update(worker, bytes_per_s=0.0)

    def _update(self, worker: WorkerId, **changes: object) -> None:
        record = self._workers[worker]
        self._workers[worker] = dataclasses.replace(record, **changes)  # type: ignore[arg-type]

    def _staying(self) -> list[WorkerRecord]:
        return [record for record in self._workers.values() if not record.is_leaving]

    def _missing_note(self) -> str:
        if self._num_wanted is None or self._has_launcher:
            return ""
        missing = self._num_wanted - len(self._staying())
        return f"waiting for {missing} more jscale-worker" if missing > 0 else ""

    def _tell(self, worker: WorkerId, command: messages.WorkerCommand) -> None:
        self._effects.append(TellWorker(worker, command))

    def _tell_gateways(self, command: messages.GatewayCommand) -> None:
        kind = type(command).__name__
        if self._last_told.get(kind) != command:
            self._last_told[kind] = command
            self._effects.append(TellGateways(command))
