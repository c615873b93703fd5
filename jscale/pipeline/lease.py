"""KV pages that pipelines have on a worker, and KV that closed ones left there."""

import numpy as np
import numpy.typing as npt

from jscale.core.errors import UnavailableError
from jscale.core.ids import PipelineId
from jscale.engine.pages import PagePool, page_map

PageMap = npt.NDArray[np.int32]
"""Virtual page of a pipeline -> physical page of the worker."""


class Leases:
    """Which pages of a worker are whose. Owned by the device thread.

    The pages of a closed pipeline are free, and yet nobody writes to them before they
    are leased again: until then sequences that were handed over can still get their KV
    from them. What was left longest ago is leased first, so what is left needs no bound
    of its own, in pages or time.
    """

    def __init__(self, num_pages: int) -> None:
        self._pool = PagePool(num_pages)
        self._open: dict[PipelineId, _Lease] = {}
        self._left: dict[PipelineId, _Lease] = {}

    @property
    def num_free(self) -> int:
        """Pages that can be leased."""
        left = sum(len(lease.pages) for lease in self._left.values())
        return self._pool.num_free + left

    def open(
        self, pipeline: PipelineId, num_pages: int, continues: PipelineId | None = None
    ) -> None:
        """Leases pages for a pipeline, or has it share those that it continues.

        Raises:
          OverloadedError: too few pages are free.
          UnavailableError: the pipeline that it continues is gone.
        """
        if continues is None:
            while self._left and self._pool.num_free < num_pages <= self.num_free:
                self._forget(next(iter(self._left)))
            lease = _Lease(self._pool.lease(num_pages))
        elif continues in self._open:
            lease = self._open[continues]
        else:
            raise UnavailableError(
                f"pipeline {continues}, which {pipeline} continues, is gone: "
                f"open one that starts anew"
            )
        lease.num_users += 1
        self._open[pipeline] = lease

    def close(self, pipeline: PipelineId) -> None:
        """Gives the pages of an open pipeline back, once nobody shares them."""
        lease = self._open.pop(pipeline)
        lease.num_users -= 1
        if not lease.num_users:
            self._left[pipeline] = lease

    def page_map(self, pipeline: PipelineId) -> PageMap | None:
        """Where its pages are, open or left; None if its KV is gone."""
        lease = self._open.get(pipeline) or self._left.get(pipeline)
        return lease.page_map if lease else None

    def _forget(self, pipeline: PipelineId) -> None:
        self._pool.release(self._left.pop(pipeline).pages)


class _Lease:
    """Pages in use by `num_users` pipelines."""

    def __init__(self, pages: list[int]) -> None:
        self.pages = pages
        self.page_map = page_map(pages)
        self.num_users = 0
