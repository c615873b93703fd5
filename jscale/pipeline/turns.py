"""Whose turn it is on a worker's device: which micro-batches run next, and together."""

import collections
import dataclasses

from jscale.core.ids import PipelineId
from jscale.pipeline.head import Head
from jscale.pipeline.lease import PageMap
from jscale.pipeline.messages import PipelineSpec
from jscale.pipeline.work import Work


@dataclasses.dataclass
class OpenPipeline:
    """A pipeline that has stages here."""

    spec: PipelineSpec
    page_map: PageMap
    head: Head | None
    waiting: collections.deque[Work] = dataclasses.field(
        default_factory=collections.deque
    )
    continued_by: PipelineId | None = None

    def next_work(self) -> Work | None:
        """What has come furthest goes first: it frees the pipeline soonest."""
        if self.waiting:
            return self.waiting.popleft()
        scheduled = self.head.next_batch() if self.head else None
        if scheduled is None:
            return None
        return Work(
            self.spec,
            0,
            scheduled.id,
            scheduled.batch,
            self.page_map,
            None,
            scheduled.is_refill,
        )


class Turns:
    """The order in which open pipelines run. Owned by the device thread."""

    def __init__(self, rows_max: int) -> None:
        """A step has at most `rows_max` rows."""
        self._rows_max = rows_max
        self._order: collections.deque[OpenPipeline] = collections.deque()
        self._is_local_turn = True

    def add(self, opened: OpenPipeline) -> None:
        """It comes last."""
        self._order.append(opened)

    def remove(self, opened: OpenPipeline) -> None:
        """It runs no more."""
        self._order.remove(opened)

    def next_works(self) -> list[Work]:
        """What runs in the next step, all of it at the same blocks; or nothing."""
        for is_local in (self._is_local_turn, not self._is_local_turn):
            for opened in list(self._order):
                if opened.spec.is_local != is_local:
                    continue
                self._order.remove(opened)
                self._order.append(opened)
                work = opened.next_work()
                if work is not None:
                    self._is_local_turn = not is_local
                    return [work, *self._take_fitting(work)]
        return []

    def _take_fitting(self, work: Work) -> list[Work]:
        """All that waits for the same blocks, as far as a step has room."""
        taken: list[Work] = []
        num_rows = work.batch.num_rows
        for opened in self._order:
            waiting = opened.waiting
            while waiting and waiting[0].fits(work):
                num_rows += waiting[0].batch.num_rows
                if num_rows > self._rows_max:
                    return taken
                taken.append(waiting.popleft())
        return taken
