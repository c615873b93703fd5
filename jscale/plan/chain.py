"""The chain: every member passes chunks on to the next."""

import dataclasses
from collections.abc import Iterator

from jscale.plan.multicast_plan import MulticastPlan


@dataclasses.dataclass(frozen=True)
class ChainPlan(MulticastPlan):
    """Member i receives from i − 1 and sends to i + 1: b + N − 2 steps.

    Two neighbours each and full links, but the last member waits for all before it.

    Source: BlitzScale (arXiv 2412.17246) scales along chains.
    """

    kind = "chain"

    @property
    def num_steps(self) -> int:
        """Steps until every member holds every chunk."""
        return self.num_chunks + self.num_members - 2

    def incoming_at(self, index: int, step: int) -> tuple[int, int] | None:
        """Chunk c reaches member i in step c + i − 1. O(1)."""
        chunk = step - (index - 1)
        if index == 0 or not 0 <= chunk < self.num_chunks:
            return None
        return index - 1, chunk

    def outgoing_at(self, index: int, step: int) -> tuple[int, int] | None:
        """Chunk c leaves member i in step c + i. O(1)."""
        chunk = step - index
        if index == self.num_members - 1 or not 0 <= chunk < self.num_chunks:
            return None
        return index + 1, chunk

    def receives_of(self, index: int) -> Iterator[tuple[int, int, int]]:
        """Every chunk from the member before."""
        if index > 0:
            for chunk in range(self.num_chunks):
                yield chunk + index - 1, index - 1, chunk

    def sends_of(self, index: int) -> Iterator[tuple[int, int, int]]:
        """Every chunk to the member after."""
        if index < self.num_members - 1:
            for chunk in range(self.num_chunks):
                yield chunk + index, index + 1, chunk
