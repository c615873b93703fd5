"""What the manager remembers: frozen records, replaced when something happens."""

from typing import Self

import msgspec

from jscale.cluster.messages import Bundle, Member, WorkerHello
from jscale.core.ids import PlanId, WorkerId
from jscale.pipeline.messages import PipelineSpec
from jscale.plan.execution import ExecutionPipeline


class WorkerRecord(msgspec.Struct, frozen=True):
    """One attached worker.

    `plan` is the multicast that it is to receive by; the busy shares of its link are
    those that it told last when it took part in none.
    """

    worker: WorkerId
    data_address: str
    serve_address: str
    attached_ns: int
    blocks: frozenset[int]
    bundle: Bundle | None
    has_executables: bool
    has_all_executables: bool
    can_load_from_disk: bool
    is_loading: bool = False
    is_leaving: bool = False
    is_dismissed: bool = False
    plan: PlanId | None = None
    host: str = ""
    leaf: str = ""
    link_bytes_per_s: float = 0.0
    local_copy_bytes_per_s: float = 0.0
    data_path: str = ""
    outbound_busy: float = 0.0
    inbound_busy: float = 0.0
    retry_after_ns: int = 0
    no_read_before_ns: int = 0
    no_pipeline_before_ns: int = 0
    received_bytes: int = 0
    bytes_per_s: float = 0.0

    @classmethod
    def of(cls, hello: WorkerHello, now_ns: int, fingerprint: str) -> Self:
        """A worker as it introduces itself, for the model of that fingerprint."""
        is_near = fingerprint in hello.in_host_memory
        near_bytes_per_s = hello.host_memory_bytes_per_s if is_near else 0.0
        return cls(
            worker=hello.worker,
            data_address=hello.data_address,
            serve_address=hello.serve_address,
            attached_ns=now_ns,
            blocks=frozenset(hello.blocks),
            bundle=hello.bundle,
            has_executables=hello.has_executables,
            has_all_executables=hello.has_all_executables,
            can_load_from_disk=hello.can_load_from_disk,
            host=hello.host,
            leaf=hello.leaf,
            link_bytes_per_s=hello.link_bytes_per_s,
            local_copy_bytes_per_s=max(hello.local_copy_bytes_per_s, near_bytes_per_s),
            data_path=hello.data_path,
        )

    @property
    def is_near_copy(self) -> bool:
        """It reads a copy of its own faster than a link as it told would bring one."""
        return self.link_bytes_per_s < self.local_copy_bytes_per_s

    def may_read(self, now_ns: int) -> bool:
        """Whether it can read a copy of its own, and did not fail to just now."""
        can_read = self.can_load_from_disk or self.local_copy_bytes_per_s > 0
        return can_read and self.no_read_before_ns <= now_ns

    @property
    def member(self) -> Member:
        """How other workers reach it."""
        return Member(worker=self.worker, address=self.data_address)


class TransferRecord(msgspec.Struct, frozen=True):
    """The multicast that is under way.

    `pending` are the targets whose part is not over.
    """

    plan: PlanId
    sources: frozenset[WorkerId]
    pending: frozenset[WorkerId]
    started_ns: int

    @property
    def members(self) -> frozenset[WorkerId]:
        """Everyone who still has to do with it."""
        return self.pending | self.sources


class PipelineRecord(msgspec.Struct, frozen=True):
    """A pipeline between its opening and its closing.

    `serves` are the workers for whose sake it was opened: the targets whose blocks it
    uses, or the worker of a local replica. A newer one for any of them supersedes it.
    """

    spec: PipelineSpec
    pipeline: ExecutionPipeline
    serves: frozenset[WorkerId]
    opened_by: frozenset[WorkerId]
    closed_by: frozenset[WorkerId]
    deadline_ns: int
    is_closing: bool = False

    @property
    def is_open(self) -> bool:
        """Every worker of it is ready, and it may take sequences."""
        return not self.is_closing and self.opened_by >= set(self.spec.workers)

    def uses(self, worker: WorkerId) -> bool:
        """Whether the worker runs a stage of it."""
        return worker in self.spec.workers
