"""The binary tree: every member passes chunks on to two others."""

import dataclasses
import functools
from collections.abc import Iterator

from jscale.plan.multicast_plan import MulticastPlan


@dataclasses.dataclass(frozen=True)
class BinaryTreePlan(MulticastPlan):
    """Member i sends each chunk to 2i + 1, then to 2i + 2: about 2b + 2 log2 N steps.

    Few steps from the source to any member, but links of inner members carry each
    chunk twice.

    Source: FaaSNet (USENIX ATC 2021, section 3) provisions functions along such trees.
    """

    kind = "tree"

    @functools.cached_property
    def num_steps(self) -> int:
        """Steps until every member holds every chunk."""
        half = self.num_members // 2  # members from here on are leaves: the deepest
        last = max(self._first_step(i) for i in range(half, self.num_members))
        return last + self._pace * (self.num_chunks - 1) + 1

    def incoming_at(self, index: int, step: int) -> tuple[int, int] | None:
        """One chunk every second step from the parent. O(log N)."""
        if index == 0:
            return None
        chunk, off_beat = divmod(step - self._first_step(index), self._pace)
        if off_beat or not 0 <= chunk < self.num_chunks:
            return None
        return (index - 1) // 2, chunk

    def outgoing_at(self, index: int, step: int) -> tuple[int, int] | None:
        """The chunk that came a step ago to one child, then to the other. O(log N)."""
        chunk, child = divmod(step - self._first_step(index) - 1, self._pace)
        target = 2 * index + 1 + child
        if target >= self.num_members or not 0 <= chunk < self.num_chunks:
            return None
        return target, chunk

    def receives_of(self, index: int) -> Iterator[tuple[int, int, int]]:
        """Every chunk from the parent."""
        if index > 0:
            first_step = self._first_step(index)
            for chunk in range(self.num_chunks):
                yield first_step + self._pace * chunk, (index - 1) // 2, chunk

    def sends_of(self, index: int) -> Iterator[tuple[int, int, int]]:
        """Every chunk to each child."""
        first_step = self._first_step(index) + 1
        targets = range(2 * index + 1, min(2 * index + 3, self.num_members))
        for chunk in range(self.num_chunks):
            for child, target in enumerate(targets):
                yield first_step + self._pace * chunk + child, target, chunk

    @property
    def _pace(self) -> int:
        """Steps between two chunks: as many as the source has children."""
        return min(2, self.num_members - 1)

    def _first_step(self, index: int) -> int:
        """The step in which a member receives chunk 0; −1 for the source."""
        steps = -1
        while index > 0:
            steps += 2 - index % 2  # the left child is odd and served first
            index = (index - 1) // 2
        return steps
