"""A worker as a pure state machine: `step(event)` returns effects.

It knows which blocks are ready, whether stages can be run, which transfers and
pipelines it is part of. The worker owns this truth: a manager that comes back is told
it anew, and nothing stops serving meanwhile.
"""

import msgspec

from jscale.cluster import messages
from jscale.cluster import worker_effects as effects
from jscale.cluster import worker_events as events
from jscale.cluster.worker_effects import WorkerEffect
from jscale.cluster.worker_events import EXECUTABLES_REGION, WorkerEvent
from jscale.cluster.worker_executables import WorkerExecutables
from jscale.core.ids import PipelineId, PlanId
from jscale.pipeline.messages import PipelineSpec


class WorkerState:
    """Owns what a worker holds and takes part in. Owned by the worker's event loop."""

    def __init__(self, identity: messages.WorkerHello) -> None:
        """A worker that holds nothing; `identity` is what seldom changes of it."""
        self._identity = identity
        self._worker = identity.worker
        self._spec: messages.ModelSpec | None = None
        self._blocks: set[int] = set()
        self._executables = WorkerExecutables()
        self._is_reading = False
        self._transfers: set[PlanId] = set()
        self._unverified: set[PlanId] = set()
        self._pipelines: dict[PipelineId, PipelineSpec] = {}
        self._is_stopping = False

    def step(self, event: WorkerEvent) -> list[WorkerEffect]:
        """The effects of one event, in the order to carry them out."""
        wanted = self._react(event)
        if self._transfers:
            return wanted
        return wanted + self._executables.settle(has_all_blocks=self._is_whole)

    def _react(self, event: WorkerEvent) -> list[WorkerEffect]:
        match event:
            case events.ManagerAttached():
                return self._hello()
            case events.ManagerDetached():
                return self._gone() if self._is_stopping else []
            case events.CommandArrived(command):
                return self._obey(command)
            case events.RegionFilled(region):
                return self._filled(region)
            case events.BlockPublished(block):
                return self._published(block)
            case events.RegionCorrupt(region, reason):
                return self._corrupt(region, reason)
            case events.ExecutablesLoaded():
                is_transferring = bool(self._transfers)
                return self._executables.loaded(event, is_transferring=is_transferring)
            case events.ExecutablesMismatched(reason):
                return self._executables.mismatched(reason)
            case events.DiskLoadFailed(reason):
                return [*self._reading_failed(reason), *self._stop_transfers()]
            case events.TransferAdvanced(plan, received_bytes, bytes_per_s):
                return [
                    effects.Report(
                        messages.TransferProgressed(plan, received_bytes, bytes_per_s)
                    )
                ]
            case events.TransferOver(plan, missing_chunks):
                return self._transfer_over(plan, missing_chunks)
            case events.DataPathChosen(data_path):
                self._identity = msgspec.structs.replace(
                    self._identity, data_path=data_path
                )
                return [effects.Report(messages.DataPathChosen(data_path))]
            case events.LinkMeasured(outbound, inbound):
                return [effects.Report(messages.LinkUsed(outbound, inbound))]
            case events.PeerGone(peer):
                return [
                    effects.BreakPipelines(peer),
                    effects.Report(messages.PeerLost(peer)),
                ]
            case events.StopRequested():
                return self._stop()
            case events.DrainTimedOut():
                return self._gone()
            case _:
                return self._stages_changed(event)

    def _hello(self) -> list[WorkerEffect]:
        hello = msgspec.structs.replace(
            self._identity,
            blocks=tuple(sorted(self._blocks)),
            bundle=self._executables.bundle,
            has_executables=self._executables.are_ready,
            has_all_executables=self._executables.are_complete,
            pipelines=tuple(self._pipelines.values()),
        )
        again: list[WorkerEffect] = [effects.Report(hello)]
        if self._is_stopping:
            again.append(effects.Report(messages.LeaveRequested()))
        return again

    def _obey(self, command: messages.WorkerCommand) -> list[WorkerEffect]:
        match command:
            case messages.Welcome(spec, protocol_version):
                return self._welcomed(spec, protocol_version)
            case messages.Refuse(reason):
                return [effects.Exit(f"the manager refused us: {reason}", failed=True)]
            case messages.LoadFromDisk(path):
                self._is_reading = True
                return [
                    *self._executables.compile("no worker has them"),
                    effects.ReadFromDisk(path),
                ]
            case messages.JoinMulticast():
                return self._join(command)
            case messages.CancelMulticast(plan):
                if plan not in self._transfers:
                    return []
                self._transfers.discard(plan)
                self._unverified.discard(plan)
                return [effects.StopMulticast(plan)]
            case messages.OpenPipeline(spec):
                return self._open(spec)
            case messages.ClosePipeline(pipeline, reason, finish, continued_by):
                if pipeline not in self._pipelines:
                    closed = messages.PipelineClosed(pipeline, "was not open")
                    return [effects.Report(closed)]
                return [effects.CloseStages(pipeline, reason, finish, continued_by)]
            case messages.Leave(reason):
                return [effects.Exit(reason)]

    def _join(self, command: messages.JoinMulticast) -> list[WorkerEffect]:
        """Takes part in this plan, and in no other any more."""
        self._transfers = {command.plan}
        self._unverified.clear()
        is_source = any(each.worker == self._worker for each in command.sources)
        return [
            *self._executables.join(command.bundle, is_source=is_source),
            effects.StartMulticast(command),
        ]

    def _welcomed(
        self, spec: messages.ModelSpec, protocol_version: int
    ) -> list[WorkerEffect]:
        if protocol_version != messages.PROTOCOL_VERSION:
            return [
                effects.Exit(
                    f"the manager speaks protocol {protocol_version}, we speak "
                    f"{messages.PROTOCOL_VERSION}: install the same jscale everywhere",
                    failed=True,
                )
            ]
        if self._spec is None:
            self._spec = spec
            return [effects.PrepareModel(spec)]
        if self._spec != spec:
            return [
                effects.Exit(
                    f"the manager now serves {spec.model_name}, or it with other "
                    f"settings; we hold {self._spec.model_name}: start us again",
                    failed=True,
                )
            ]
        return []

    def _published(self, block: int) -> list[WorkerEffect]:
        self._blocks.add(block)
        reports: list[WorkerEffect] = [effects.Report(messages.BlockReady(block))]
        if self._is_whole:
            self._is_reading = False
            for plan in sorted(self._unverified):
                reports.append(effects.Report(messages.TransferEnded(plan, 0)))
            self._transfers -= self._unverified
            self._unverified.clear()
        return reports

    def _transfer_over(self, plan: PlanId, missing_chunks: int) -> list[WorkerEffect]:
        """Told only when the last block is verified: it may yet turn out corrupt."""
        if plan not in self._transfers:
            return []
        if missing_chunks == 0 and not self._is_whole:
            self._unverified.add(plan)
            return []
        self._transfers.discard(plan)
        return [effects.Report(messages.TransferEnded(plan, missing_chunks))]

    @property
    def _is_whole(self) -> bool:
        return self._spec is not None and len(self._blocks) == self._spec.num_blocks

    def _filled(self, region: int) -> list[WorkerEffect]:
        if region != EXECUTABLES_REGION:
            return [effects.VerifyBlock(region - 1)]
        return self._executables.filled()

    def _corrupt(self, region: int, reason: str) -> list[WorkerEffect]:
        """End every transfer as incomplete: the manager plans anew what is missing."""
        if region == EXECUTABLES_REGION:
            return [*self._stop_transfers(), *self._executables.corrupt(reason)]
        if self._is_reading or not self._transfers:
            return [*self._reading_failed(reason), *self._stop_transfers()]
        return self._stop_transfers()

    def _reading_failed(self, reason: str) -> list[WorkerEffect]:
        self._is_reading = False
        return [effects.Report(messages.LoadFailed(reason))]

    def _stop_transfers(self) -> list[WorkerEffect]:
        """What we hold is not what the plans take it to be."""
        stopped: list[WorkerEffect] = []
        for plan in sorted(self._transfers):
            stopped.append(effects.StopMulticast(plan))
            stopped.append(effects.Report(messages.TransferEnded(plan, 1)))
        self._transfers.clear()
        self._unverified.clear()
        return stopped

    def _open(self, spec: PipelineSpec) -> list[WorkerEffect]:
        ours = [stage for stage in spec.stages if stage.worker == self._worker]
        needed = {
            block
            for stage in ours
            for block in range(stage.first_block, stage.first_block + stage.num_blocks)
        }
        why = ""
        if missing := sorted(needed - self._blocks):
            why = f"{self._worker} does not hold block {missing[0]}"
        elif not self._executables.are_ready:
            why = f"{self._worker} has no executables yet"
        if why:
            return [effects.Report(messages.PipelineRefused(spec.pipeline, why))]
        self._pipelines[spec.pipeline] = spec
        return [effects.OpenStages(spec)]

    def _stages_changed(self, event: WorkerEvent) -> list[WorkerEffect]:
        match event:
            case events.StagesOpened(pipeline):
                return [effects.Report(messages.PipelineOpened(pipeline))]
            case events.StagesRefused(pipeline, reason):
                self._pipelines.pop(pipeline, None)
                return [effects.Report(messages.PipelineRefused(pipeline, reason))]
            case events.StagesClosed(pipeline, reason):
                self._pipelines.pop(pipeline, None)
                return [effects.Report(messages.PipelineClosed(pipeline, reason))]
            case _:
                raise AssertionError(f"unknown event {event}")

    def _stop(self) -> list[WorkerEffect]:
        if self._is_stopping:
            return self._gone()
        self._is_stopping = True
        if self._spec is None:
            return self._gone()
        return [effects.Report(messages.LeaveRequested())]

    def _gone(self) -> list[WorkerEffect]:
        return [effects.Exit("asked to stop")]
