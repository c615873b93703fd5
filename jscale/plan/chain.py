"""The chain: every member passes chunks on to the next."""

import dataclasses

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
