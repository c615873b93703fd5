"""Flat: the source sends every chunk to every target itself."""

import dataclasses
from collections.abc import Iterator

from jscale.plan.multicast_plan import MulticastPlan


@dataclasses.dataclass(frozen=True)
class FlatPlan(MulticastPlan):
    """Chunk by chunk, one target after the other: b · (N − 1) steps.

    What comes of having no plan: the source's link carries all, nobody else's any.
    """

    kind = "flat"

    @property
    def num_steps(self) -> int:
        """Steps until every member holds every chunk."""
        return self.num_chunks * self._num_targets

    def incoming_at(self, index: int, step: int) -> tuple[int, int] | None:
        """One chunk every N − 1 steps, from the source. O(1)."""
        sent = self.outgoing_at(0, step)
        return (0, sent[1]) if sent is not None and sent[0] == index else None

    def outgoing_at(self, index: int, step: int) -> tuple[int, int] | None:
        """The source sends in every step, others in none. O(1)."""
        if index != 0 or not 0 <= step < self.num_steps:
            return None
        chunk, target = divmod(step, self._num_targets)
        return 1 + target, chunk

    def receives_of(self, index: int) -> Iterator[tuple[int, int, int]]:
        """Every chunk from the source."""
        if index > 0:
            for chunk in range(self.num_chunks):
                yield chunk * self._num_targets + index - 1, 0, chunk

    def sends_of(self, index: int) -> Iterator[tuple[int, int, int]]:
        """All from the source, nothing from others."""
        return super().sends_of(index) if index == 0 else iter(())

    @property
    def _num_targets(self) -> int:
        return self.num_members - 1
