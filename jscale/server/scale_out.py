"""A change of the number of workers, as it comes about."""

import collections
from collections.abc import Iterator

from jscale.core.errors import UnavailableError
from jscale.proto.v1 import jscale_pb2 as pb
from jscale.server.client import Client


class ScaleOut:
    """Watches a cluster until it has the workers that were asked for. Immutable."""

    def __init__(self, client: Client, num_workers: int) -> None:
        self.num_workers = num_workers
        self._client = client

    def progress(
        self, *, interval_ms: int = 100, timeout_s: float | None = None
    ) -> Iterator[pb.ModelStatusResponse]:
        """Holdings, pipelines and speed, until every worker runs the whole model.

        The last status is that of the finished change. Manager and gateway may be
        lost and come back meanwhile.

        Raises:
          UnavailableError: the gateway is gone, another number is wanted meanwhile, or
            the time is over.
        """
        seen, epoch = False, 0
        for status in self._client.watch(interval_ms=interval_ms, timeout_s=timeout_s):
            if not status.block_sizes_bytes:
                continue  # A gateway that has just begun: the manager told it nothing.
            if status.manager_epoch != epoch:  # It will hear of what is wanted.
                seen, epoch = False, status.manager_epoch
            wanted = status.num_workers_wanted
            if seen and wanted != self.num_workers:
                raise UnavailableError(
                    f"{wanted} workers are wanted now, no longer {self.num_workers}"
                )
            seen = wanted == self.num_workers
            yield status
            if is_settled(status, self.num_workers):
                return
        raise UnavailableError("the gateway ended before the change of workers did")

    def wait(self, timeout_s: float | None = None) -> pb.ModelStatusResponse:
        """The status of the finished change.

        Raises:
          UnavailableError: as `progress`.
        """
        statuses = self.progress(timeout_s=timeout_s)
        return collections.deque(statuses, maxlen=1).pop()


def is_settled(status: pb.ModelStatusResponse, num_workers: int) -> bool:
    """So many workers are wanted and there, and each runs the whole model."""
    return (
        status.num_workers_wanted == num_workers
        and len(status.workers) == num_workers
        and all(worker.phase == pb.PHASE_LOCAL for worker in status.workers)
    )
