"""The workers that are attached, and which of them is what: kept, not sought."""

from collections.abc import Callable, Iterator, Mapping

import msgspec

from jscale.cluster.records import WorkerRecord
from jscale.core.ids import WorkerId

Members = dict[WorkerId, None]
"""A set that keeps the order in which workers came into it."""


class Roster(Mapping[WorkerId, WorkerRecord]):
    """Owns the records of workers. Part of a `ManagerState`, pure like it.

    Every question that the manager asks after each event has its set here, so that an
    event costs as much with ten workers as with ten thousand.

    Attributes:
      complete: hold every block.
      senders: complete, with every executable, and staying: could send the model.
      feeding: hold every block or read what they lack, and stay: could send the blocks,
        chunk by chunk, as they come.
      waiting: lack blocks and are neither sent nor reading them.
      near: wait, and can read a copy of their own faster than their link brings it.
      loading: read the model from disk, and stay.
      leaving: asked to go.
    """

    def __init__(self, num_blocks: int) -> None:
        """Nobody is attached yet."""
        self._num_blocks = num_blocks
        self.version = 0
        """Counts what could make other pipelines worth opening."""
        self._records: dict[WorkerId, WorkerRecord] = {}
        self.complete: Members = {}
        self.senders: Members = {}
        self.feeding: Members = {}
        self.waiting: Members = {}
        self.near: Members = {}
        self.loading: Members = {}
        self.leaving: Members = {}
        self._rules: tuple[tuple[Members, Callable[[WorkerRecord], bool]], ...] = (
            (self.complete, self.is_complete),
            (
                self.senders,
                lambda r: (
                    self.is_complete(r) and r.has_all_executables and not r.is_leaving
                ),
            ),
            (
                self.feeding,
                lambda r: (self.is_complete(r) or r.is_loading) and not r.is_leaving,
            ),
            (self.waiting, self._waits),
            (
                self.near,
                lambda r: self._waits(r) and r.is_near_copy,
            ),
            (self.loading, lambda r: r.is_loading and not r.is_leaving),
            (self.leaving, lambda r: r.is_leaving),
        )

    def __getitem__(self, worker: WorkerId) -> WorkerRecord:
        return self._records[worker]

    def __iter__(self) -> Iterator[WorkerId]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    @property
    def num_staying(self) -> int:
        """Workers that were not asked to go."""
        return len(self._records) - len(self.leaving)

    def is_complete(self, record: WorkerRecord) -> bool:
        """Whether it holds the whole model."""
        return len(record.blocks) == self._num_blocks

    def _waits(self, record: WorkerRecord) -> bool:
        is_served = record.plan is not None or record.is_loading
        return not (is_served or record.is_leaving or self.is_complete(record))

    def put(self, record: WorkerRecord) -> None:
        """A worker is there, or is not what it was."""
        worker = record.worker
        before = self._records.get(worker)
        if before is None or _matters(before) != _matters(record):
            self.version += 1
        self._records[worker] = record
        for members, belongs in self._rules:
            if belongs(record):
                members[worker] = None
            else:
                members.pop(worker, None)

    def update(self, worker: WorkerId, **changes: object) -> None:
        """Replaces fields of a record."""
        self.put(msgspec.structs.replace(self._records[worker], **changes))

    def remove(self, worker: WorkerId) -> None:
        """A worker is gone; nothing happens if it was not there."""
        self.version += self._records.pop(worker, None) is not None
        for members, _ in self._rules:
            members.pop(worker, None)


def _matters(record: WorkerRecord) -> tuple[object, ...]:
    """What pipelines are chosen by."""
    return record.blocks, record.has_executables, record.is_leaving
