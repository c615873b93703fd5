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
from jscale.cluster.effects import (
    Effect,
    TellGateway,
    TellGateways,
    TellLauncher,
    TellWorker,
)
from jscale.cluster.launches import Launches
from jscale.cluster.pipeline_book import PipelineBook
from jscale.cluster.records import PipelineRecord, TransferRecord, WorkerRecord
from jscale.cluster.status import describe_replicas, describe_status
from jscale.core.ids import PipelineId, PlanId, WorkerId, first_id
from jscale.plan.execution import PipelinePolicy
from jscale.plan.execution_policy import ExecutionPolicy

RETRY_NS = 500_000_000
"""How long a worker whose transfer or pipeline failed waits for the next try."""

RELOAD_NS = 5_000_000_000
"""How long a worker that could not read the disk waits for the next try."""


@dataclasses.dataclass(frozen=True)
class ManagerPolicy:
    """How the manager chooses."""

    execution: PipelinePolicy = dataclasses.field(default_factory=ExecutionPolicy)
    multicast_kind: str = "binomial"
    executes_while_loading: bool = True


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
        epoch: int = 0,
    ) -> None:
        """A manager that knows no worker yet.

        Args:
          spec: the model, and how it is run.
          model_path: block store that workers can read from disk.
          num_workers: how many are wanted; None: as many as attach.
          policy: how to choose.
          epoch: the millisecond in which this manager started; 0 in tests.
        """
        self._spec = spec
        self._model_path = model_path
        self._num_wanted = num_workers
        self._policy = policy or ManagerPolicy()
        self._effects: list[Effect] = []
        self._workers: dict[WorkerId, WorkerRecord] = {}
        self._transfers: dict[PlanId, TransferRecord] = {}
        self._epoch = epoch
        self._wanted_epoch = -1
        self._next_plan = first_id(epoch) + 1
        self._pipelines = PipelineBook(
            self._workers, self._effects.append, first_id(epoch)
        )
        self._launches = Launches()
        self._note = ""
        self._gateways: set[str] = set()
        self._replicas: dict[PipelineId, messages.Replica] = {}
        self._status: messages.StatusChanged | None = None

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
                if note := self._launches.failed(worker, exit_code, now_ns):
                    self._note = note
            case events.GatewayAttached(hello):
                self._attach_gateway(hello)
            case events.GatewayDetached(gateway):
                self._gateways.discard(gateway)
            case events.LauncherAttached(workers):
                running = [each for each in workers if each not in self._workers]
                self._launches.attached(running, now_ns)
                if self._num_wanted is not None:  # They were wanted before a restart.
                    self._num_wanted = max(self._num_wanted, len(workers))
            case events.LauncherDetached():
                self._launches.detached()
            case events.ScaleRequested(num_workers):
                self._num_wanted = num_workers
                self._wanted_epoch = self._epoch
                self._launches.forgive()
            case events.Ticked():
                if note := self._launches.give_up_late(now_ns):
                    self._note = note
                self._pipelines.close_late(now_ns)
        self._reconcile(now_ns)
        effects = self._effects.copy()
        self._effects.clear()
        return effects

    # --- what happened ---------------------------------------------------------

    def _attach(self, hello: messages.WorkerHello, now_ns: int) -> None:
        if hello.worker in self._workers:
            self._detach(hello.worker)
        came_by_itself = self._launches.arrived(hello.worker)
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
        if self._num_wanted is not None and came_by_itself:
            self._num_wanted = max(self._num_wanted, self._num_staying)
        self._tell(hello.worker, messages.Welcome(self._spec))
        for spec in hello.pipelines:
            self._pipelines.adopt(hello.worker, spec, now_ns)

    def _attach_gateway(self, hello: messages.GatewayHello) -> None:
        """Tells it all; and learns from it what an earlier manager wanted."""
        self._gateways.add(hello.gateway)
        replicas = tuple(self._replicas.values())
        snapshot = messages.ReplicasChanged(opened=replicas, is_snapshot=True)
        self._effects.append(TellGateway(hello.gateway, snapshot))
        if self._status is not None:
            self._effects.append(TellGateway(hello.gateway, self._status))
        is_news = self._wanted_epoch < hello.wanted_epoch < self._epoch
        if hello.num_workers_wanted is not None and is_news:
            self._num_wanted = hello.num_workers_wanted
            self._wanted_epoch = hello.wanted_epoch

    def _detach(self, worker: WorkerId) -> None:
        self._workers.pop(worker, None)
        self._cancel_transfers_of(worker)
        for record in self._pipelines:
            if record.uses(worker):
                self._pipelines.close(record, f"{worker} is lost")

    def _report(
        self, worker: WorkerId, report: messages.WorkerReport, now_ns: int
    ) -> None:
        match report:
            case messages.BlockReady(block):
                blocks = self._workers[worker].blocks | {block}
                is_done = len(blocks) == self._spec.num_blocks
                is_loading = self._workers[worker].is_loading and not is_done
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
                retry_ns = now_ns + RELOAD_NS
                self._update(worker, is_loading=False, retry_after_ns=retry_ns)
            case messages.LeaveRequested():
                # Others that are on the way stay wanted.
                if self._num_wanted and not self._workers[worker].is_leaving:
                    self._num_wanted -= 1
                self._let_go(worker)
            case _:
                self._report_pipeline(worker, report, now_ns)

    def _report_pipeline(
        self, worker: WorkerId, report: messages.WorkerReport, now_ns: int
    ) -> None:
        match report:
            case messages.PipelineOpened(pipeline):
                self._pipelines.opened(worker, pipeline)
            case messages.PipelineRefused(pipeline, reason) | messages.PipelineClosed(
                pipeline, reason
            ):
                record = self._pipelines.find(pipeline)
                if record is not None and not record.is_closing:
                    self._rest(record, now_ns)
                self._pipelines.closed(worker, pipeline, reason or "closed")
            case messages.PeerLost(peer):
                for record in self._pipelines:
                    if record.uses(worker) and record.uses(peer):
                        self._rest(record, now_ns)
                        self._pipelines.close(record, f"{worker} lost sight of {peer}")

    def _rest(self, record: PipelineRecord, now_ns: int) -> None:
        """What has just failed would fail again at once: no pages, or no peer, say."""
        for worker in record.serves & self._workers.keys():
            self._update(worker, no_pipeline_before_ns=now_ns + RETRY_NS)

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
        missing = self._num_wanted - self._num_staying
        for worker in self._launches.start(missing, now_ns):
            self._effects.append(TellLauncher(messages.LaunchWorker(worker)))
        for worker in choose_leavers(
            self._workers,
            num_blocks=self._spec.num_blocks,
            num_wanted=self._num_wanted,
        ):
            self._let_go(worker)

    def _reconcile_holdings(self, now_ns: int) -> None:
        loader = choose_disk_loader(
            self._workers,
            self._transfers.values(),
            num_blocks=self._spec.num_blocks,
            now_ns=now_ns,
        )
        if loader is not None:
            self._update(loader, is_loading=True)
            self._tell(loader, messages.LoadFromDisk(self._model_path))
        for source, targets in choose_transfers(
            self._workers,
            self._transfers.values(),
            num_blocks=self._spec.num_blocks,
            num_launching=self._launches.num_pending,
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
        for choice in choose_pipelines(
            self._workers,
            self._pipelines,
            num_blocks=self._spec.num_blocks,
            policy=self._policy.execution,
            now_ns=now_ns,
            only_complete=not self._policy.executes_while_loading,
        ):
            is_local = choice.pipeline.is_local
            self._pipelines.open(
                choice.pipeline,
                choice.serves,
                num_pages=lease_pages(self._spec.engine, is_local=is_local),
                continues=choice.continues,
                now_ns=now_ns,
            )

    def _publish(self) -> None:
        """Tell gateways what is open, leaving out what is about to be retired."""
        superseded = self._pipelines.superseded(self._leaving)
        replicas = describe_replicas(
            self._spec,
            self._workers,
            self._pipelines,
            {record.spec.pipeline for record in superseded},
        )
        opened = tuple(replicas[p] for p in replicas.keys() - self._replicas.keys())
        closed = tuple(sorted(self._replicas.keys() - replicas.keys()))
        self._replicas = replicas
        if opened or closed:
            in_order = tuple(sorted(opened, key=lambda replica: replica.pipeline))
            change = messages.ReplicasChanged(opened=in_order, closed=closed)
            self._effects.append(TellGateways(change))
        status = describe_status(
            self._spec,
            self._workers,
            self._pipelines,
            num_wanted=self._num_wanted,
            note=self._missing_note() or self._note,
            epoch=self._epoch,
        )
        if status != self._status:
            self._status = status
            self._effects.append(TellGateways(status))

    def _retire(self) -> None:
        """Close what newer pipelines supersede, and let those leave who are free."""
        for record in self._pipelines.superseded(self._leaving):
            others = [each for each in self._pipelines if each is not record]
            # Nobody can take over from a last replica: it ends what it has by itself.
            finish = record.spec.is_local and not any(each.is_open for each in others)
            self._pipelines.close(record, "superseded or leaving", finish=finish)
        for worker in self._leaving:
            is_used = any(record.uses(worker) for record in self._pipelines)
            if not is_used and not self._workers[worker].is_dismissed:
                self._cancel_transfers_of(worker)
                self._update(worker, is_dismissed=True)
                self._tell(worker, messages.Leave("fewer workers are wanted"))

    # --- small acts --------------------------------------------------------------

    @property
    def _num_staying(self) -> int:
        return len(self._workers) - len(self._leaving)

    @property
    def _leaving(self) -> list[WorkerId]:
        return [r.worker for r in self._workers.values() if r.is_leaving]

    def _cancel_transfers_of(self, worker: WorkerId) -> None:
        for transfer in list(self._transfers.values()):
            if worker not in transfer.members:
                continue
            del self._transfers[transfer.plan]
            for member in sorted(transfer.members & self._workers.keys()):
                self._tell(member, messages.CancelMulticast(transfer.plan))
                self._update(member, bytes_per_s=0.0)

    def _let_go(self, worker: WorkerId) -> None:
        self._update(worker, is_leaving=True)
        self._launches.let_go(worker)

    def _update(self, worker: WorkerId, **changes: object) -> None:
        record = self._workers[worker]
        self._workers[worker] = dataclasses.replace(record, **changes)  # type: ignore[arg-type]

    def _missing_note(self) -> str:
        if self._num_wanted is None or self._launches.is_possible:
            return ""
        missing = self._num_wanted - self._num_staying
        return f"waiting for {missing} more jscale-worker" if missing > 0 else ""

    def _tell(self, worker: WorkerId, command: messages.WorkerCommand) -> None:
        self._effects.append(TellWorker(worker, command))
