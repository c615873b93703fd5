"""KV pages: those that a worker has, and those that a replica has of them.

A replica numbers its pages from 1 on, the same on every stage: batches name these
virtual pages, and each worker translates them into the physical pages it leased, by
the map that `page_map` makes. Page 0 is nobody's on either side: padding writes there.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from jscale.core.errors import OverloadedError

PADDING_PAGE = 0


class PagePool:
    """Pages 1 to `num_pages`, of a worker or of a replica.

    Mutable; owned by the thread of whoever gives the pages out: the worker's control
    thread leases them to replicas, a replica's scheduler to its sequences.
    """

    def __init__(self, num_pages: int) -> None:
        """A pool with every page free."""
        self._free = list(range(num_pages, PADDING_PAGE, -1))
        self.num_pages = num_pages

    @property
    def num_free(self) -> int:
        """Pages that can still be leased."""
        return len(self._free)

    def lease(self, num_pages: int) -> list[int]:
        """So many pages; what is in them is left over from others.

        Raises:
          OverloadedError: there are not so many free pages.
        """
        if num_pages > len(self._free):
            raise OverloadedError(
                f"{num_pages} KV pages wanted, {len(self._free)} of {self.num_pages} "
                "are free: close a pipeline first, or give the worker more pages"
            )
        return [self._free.pop() for _ in range(num_pages)]

    def release(self, pages: Sequence[int]) -> None:
        """Takes leased pages back; their KV is lost."""
        self._free.extend(reversed(pages))
        assert len(self._free) <= self.num_pages, "pages released twice"


def page_map(pages: Sequence[int]) -> npt.NDArray[np.int32]:
    """Virtual page -> physical page, `[1 + pages]`, for pages that a worker leased."""
    return np.array([PADDING_PAGE, *pages], np.int32)
