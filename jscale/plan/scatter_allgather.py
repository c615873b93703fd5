"""Scatter and allgather: parts to everyone, then all parts round a ring."""

import dataclasses

from jscale.plan.multicast_plan import MulticastPlan


@dataclasses.dataclass(frozen=True)
class ScatterAllgatherPlan(MulticastPlan):
    """The source deals out N parts, which then go round: about 2b (N − 1) / N steps.

    Part p, chunks ⌊p b / N⌋ to ⌊(p + 1) b / N⌋ − 1, goes to member p; the source keeps
    part 0. In each of the N − 1 rounds that follow, every member passes on the part
    that it got in the round before, its own at first. A link carries no chunk twice,
    but nearly twice the time goes by, however few the members.

    Source: van de Geijn's broadcast for long messages, in MPICH as Thakur, Rabenseifner
    and Gropp describe it (IJHPCA 2005, section 4.2); libraries of collectives, NCCL
    among them, compose broadcasts of their scatters and ring allgathers in this way.
    """

    kind = "scatter"

    @property
    def num_steps(self) -> int:
        """Steps until every member holds every chunk."""
        return self._num_scattered + (self.num_members - 1) * self._round_steps

    def incoming_at(self, index: int, step: int) -> tuple[int, int] | None:
        """A chunk of the member's own part, or what its left neighbour sends. O(1)."""
        left = 0 if step < self._num_scattered else (index - 1) % self.num_members
        sent = self.outgoing_at(left, step)
        return (left, sent[1]) if sent is not None and sent[0] == index else None

    def outgoing_at(self, index: int, step: int) -> tuple[int, int] | None:
        """The source's next chunk to its owner, or one of a part that goes round.

        O(1).
        """
        if not 0 <= step < self.num_steps:
            return None
        if step < self._num_scattered:
            chunk = self._part_start(1) + step
            owner = ((chunk + 1) * self.num_members - 1) // self.num_chunks
            return (owner, chunk) if index == 0 else None
        turn, offset = divmod(step - self._num_scattered, self._round_steps)
        part = (index - turn) % self.num_members
        chunk = self._part_start(part) + offset
        right = (index + 1) % self.num_members
        if right == 0 or chunk >= self._part_start(part + 1):
            return None
        return right, chunk

    @property
    def _num_scattered(self) -> int:
        """Chunks that the source does not keep."""
        return self.num_chunks - self._part_start(1)

    @property
    def _round_steps(self) -> int:
        """Chunks of the largest part."""
        return -(-self.num_chunks // self.num_members)

    def _part_start(self, part: int) -> int:
        return part * self.num_chunks // self.num_members
