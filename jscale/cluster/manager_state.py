"""The manager as a pure state machine: `step(event, now_ns)` returns effects.

What is wanted (a number of workers) and what is there (attached workers, their blocks,
transfers under way, pipelines) are compared after every event, and the difference
becomes effects. There is no other logic: a fault is a difference like any other.
"""

from jscale.cluster import events, gateway_messages, messages
from jscale.cluster.decisions import (
    choose_disk_loader,
    choose_leavers,
    choose_local_loaders,
    choose_pipelines,
    is_too_soon,
    lease_pages,
)
from jscale.cluster.effects import Effect, TellLauncher, TellWorker
from jscale.cluster.launches import Launches
from jscale.cluster.manager_policy import ManagerPolicy
from jscale.cluster.multicast_book import MulticastBook
from jscale.cluster.number_wanted import NumberWanted
from jscale.cluster.pipeline_book import PipelineBook
from jscale.cluster.publisher import Publisher
from jscale.cluster.records import PipelineRecord, WorkerRecord
from jscale.cluster.roster import Roster
from jscale.core.ids import WorkerId, first_id
from jscale.store.manifest import manifest_fingerprint

REST_NS = 500_000_000
"""How long a worker whose pipeline failed waits for the next one."""

RELOAD_NS = 5_000_000_000
"""How long a worker that could not read the disk waits for the next try."""


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
        self._fingerprint = manifest_fingerprint(spec.manifest)
        self._policy = policy or ManagerPolicy()
        self._wanted = NumberWanted(
            num_workers,
            self._policy.scaling,
            self._policy.bounds,
            sequences_per_worker=spec.engine.max_sequences,
            epoch=epoch,
        )
        self._effects: list[Effect] = []
        self._roster = Roster(spec.num_blocks)
        self._multicasts = MulticastBook(
            self._roster,
            self._effects.append,
            spec,
            kind=self._policy.multicast_kind,
            first_id=first_id(epoch),
        )
        self._pipelines = PipelineBook(
            self._roster, self._effects.append, first_id(epoch)
        )
        self._launches = Launches()
        self._publisher = Publisher(
            spec, self._roster, self._pipelines, self._effects.append, epoch=epoch
        )
        self._note = ""
        self._chosen_version = (-1, -1)
        self._chosen_ns = 0
        self._rest_ends_ns: set[int] = set()

    def step(self, event: events.Event, now_ns: int) -> list[Effect]:
        """The effects of one event, in the order to carry them out."""
        match event:
            case events.WorkerAttached(hello):
                self._attach(hello, now_ns)
            case events.WorkerDetached(worker):
                self._detach(worker)
            case events.WorkerReported(worker, report):
                if worker in self._roster:
                    self._report(worker, report, now_ns)
            case events.WorkerProcessEnded(worker, exit_code):
                self._wanted.gone(worker)
                if note := self._launches.failed(worker, exit_code, now_ns):
                    self._note = note
            case events.GatewayAttached(hello):
                self._attach_gateway(hello)
            case events.GatewayDetached(gateway):
                self._wanted.gateway_lost(gateway, now_ns)
            case events.GatewayReported(gateway, load):
                self._wanted.reported(gateway, load, now_ns)
            case events.LauncherAttached(workers, ended=ended):
                running = [each for each in workers if each not in self._roster]
                self._launches.attached(running, ended, now_ns)
                self._wanted.launcher_attached(event)
            case events.LauncherDetached():
                self._launches.detached()
            case events.ScaleRequested(num_workers):
                self._wanted.ask(num_workers)
                self._launches.forgive()
            case events.Ticked():
                if note := self._launches.give_up_late(now_ns):
                    self._note = note
                self._pipelines.close_late(now_ns)
        if not isinstance(event, events.Ticked | events.GatewayReported):
            self._publisher.something_happened()
        self._reconcile(now_ns)
        effects = self._effects.copy()
        self._effects.clear()
        return effects

    # --- what happened ---------------------------------------------------------

    def _attach(self, hello: messages.WorkerHello, now_ns: int) -> None:
        if hello.worker in self._roster:
            self._detach(hello.worker)
        came_by_itself = self._launches.arrived(hello.worker)
        record = WorkerRecord.of(hello, now_ns, self._fingerprint)
        self._roster.put(record)
        if came_by_itself:
            self._wanted.joined(self._roster.num_staying, is_back=hello.is_back)
        self._tell(hello.worker, messages.Welcome(self._spec))
        for spec in hello.pipelines:
            self._pipelines.adopt(hello.worker, spec, now_ns)

    def _attach_gateway(self, hello: gateway_messages.GatewayHello) -> None:
        """Tells it all; and learns from it what an earlier manager wanted."""
        self._publisher.greet(hello.gateway)
        self._wanted.learn(hello.num_workers_wanted, hello.wanted_epoch)

    def _detach(self, worker: WorkerId) -> None:
        self._wanted.gone(worker)
        self._roster.remove(worker)
        self._multicasts.lost(worker)
        for record in self._pipelines.using(worker):
            self._pipelines.close(record, f"{worker} is lost")

    def _report(
        self, worker: WorkerId, report: messages.WorkerReport, now_ns: int
    ) -> None:
        match report:
            case messages.BlockReady(block):
                record = self._roster[worker]
                blocks = record.blocks | {block}
                is_done = len(blocks) == self._spec.num_blocks
                is_loading = record.is_loading and not is_done
                self._roster.update(worker, blocks=blocks, is_loading=is_loading)
                if is_done:
                    self._wanted.serves(worker, now_ns)
            case messages.ExecutablesReady():
                self._roster.update(
                    worker,
                    has_executables=True,
                    has_all_executables=report.is_complete,
                    bundle=report.bundle,
                )
            case messages.TransferProgressed():
                self._multicasts.progressed(
                    worker, report.plan, report.received_bytes, now_ns
                )
                self._roster.update(
                    worker,
                    received_bytes=report.received_bytes,
                    bytes_per_s=report.bytes_per_s,
                )
            case messages.TransferEnded(plan, missing_chunks):
                self._multicasts.ended(worker, plan, missing_chunks, now_ns)
            case messages.DataPathChosen(data_path):
                self._roster.update(worker, data_path=data_path)
            case messages.LinkUsed(outbound, inbound):
                # What our own multicast uses of it is no reason to send elsewhere.
                if not self._multicasts.involves(worker):
                    self._roster.update(
                        worker, outbound_busy=outbound, inbound_busy=inbound
                    )
            case messages.LoadFailed(reason):
                self._note = f"{worker} could not load the model: {reason}"
                self._multicasts.lost(worker)
                retry_ns = now_ns + RELOAD_NS
                self._roster.update(
                    worker, is_loading=False, no_read_before_ns=retry_ns
                )
            case messages.LeaveRequested():
                if not self._roster[worker].is_leaving:
                    self._wanted.one_fewer()
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
                for record in self._pipelines.using(worker):
                    if record.uses(peer):
                        self._rest(record, now_ns)
                        self._pipelines.close(record, f"{worker} lost sight of {peer}")

    def _rest(self, record: PipelineRecord, now_ns: int) -> None:
        """What has just failed would fail again at once: no pages, or no peer, say."""
        for worker in record.serves & self._roster.keys():
            end_ns = now_ns + REST_NS
            self._roster.update(worker, no_pipeline_before_ns=end_ns)
            self._rest_ends_ns.add(end_ns)

    # --- what follows ------------------------------------------------------------

    def _reconcile(self, now_ns: int) -> None:
        """Each part costs nothing while what it looks at is as it was."""
        self._reconcile_number(now_ns)
        self._reconcile_pipelines(now_ns)
        note = self._missing_note() or self._note
        self._publisher.publish(self._wanted.number, note, now_ns)
        self._pipelines.retire()
        self._dismiss()
        self._reconcile_holdings(now_ns)

    def _reconcile_number(self, now_ns: int) -> None:
        self._wanted.follow_load(len(self._roster.senders), now_ns)
        if self._wanted.number is None:
            return
        if self._launches.is_possible and (told := self._wanted.to_remember()):
            self._effects.append(TellLauncher(told))
        missing = self._wanted.number - self._roster.num_staying
        for worker in self._launches.start(missing, now_ns):
            if self._roster.senders:  # One that reads the disk takes longer.
                self._wanted.started(worker, now_ns)
            self._effects.append(TellLauncher(gateway_messages.LaunchWorker(worker)))
        if missing < 0:
            for worker in choose_leavers(self._roster, num_excess=-missing):
                self._let_go(worker)

    def _reconcile_holdings(self, now_ns: int) -> None:
        for loader in choose_local_loaders(
            self._roster, now_ns, all_of_them=self._policy.loads_locally
        ):
            self._read_disk(loader)
        if not self._policy.loads_locally:
            self._multicasts.reconcile(now_ns, num_launching=self._launches.num_pending)
        if (first := choose_disk_loader(self._roster, now_ns)) is not None:
            self._read_disk(first)
            self._multicasts.reconcile(now_ns, num_launching=self._launches.num_pending)

    def _reconcile_pipelines(self, now_ns: int) -> None:
        version = (self._roster.version, self._pipelines.version)
        ended = {end_ns for end_ns in self._rest_ends_ns if end_ns <= now_ns}
        is_due = ended or version != self._chosen_version
        if not is_due or is_too_soon(len(self._roster), self._chosen_ns, now_ns):
            return
        self._rest_ends_ns -= ended
        self._chosen_ns = now_ns
        for choice in choose_pipelines(
            self._roster,
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
        self._chosen_version = (self._roster.version, self._pipelines.version)

    def _dismiss(self) -> None:
        """Let those go whom nothing uses any more."""
        for worker in list(self._roster.leaving):
            is_needed = self._multicasts.is_source(worker) and not self._roster.senders
            is_used = bool(self._pipelines.using(worker)) or is_needed
            if not is_used and not self._roster[worker].is_dismissed:
                self._multicasts.lost(worker)
                self._roster.update(worker, is_dismissed=True)
                self._tell(worker, messages.Leave("fewer workers are wanted"))

    # --- small acts --------------------------------------------------------------

    def _let_go(self, worker: WorkerId) -> None:
        self._roster.update(worker, is_leaving=True)
        self._launches.let_go(worker)
        self._pipelines.withdraw_from(worker)

    def _read_disk(self, worker: WorkerId) -> None:
        self._roster.update(worker, is_loading=True)
        self._tell(worker, messages.LoadFromDisk(self._model_path))

    def _missing_note(self) -> str:
        if self._wanted.number is None or self._launches.is_possible:
            return ""
        missing = self._wanted.number - self._roster.num_staying
        return f"waiting for {missing} more jscale-worker" if missing > 0 else ""

    def _tell(self, worker: WorkerId, command: messages.WorkerCommand) -> None:
        self._effects.append(TellWorker(worker, command))
