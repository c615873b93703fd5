"""Scatter and allgather: parts to everyone, then all parts round a ring."""

import dataclasses
from collections.abc import Iterator

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
            return (self._owner(chunk), chunk) if index == 0 else None
        turn, offset = divmod(step - self._num_scattered, self._round_steps)
        part = (index - turn) % self.num_members
        chunk = self._part_start(part) + offset
        right = (index + 1) % self.num_members
        if right == 0 or chunk >= self._part_start(part + 1):
            return None
        return right, chunk

    def receives_of(self, index: int) -> Iterator[tuple[int, int, int]]:
        """Its own part from the source, the others from its left neighbour."""
        if index == 0:
            return
        start = self._part_start(1)
        for chunk in range(self._part_start(index), self._part_start(index + 1)):
            yield chunk - start, 0, chunk
        yield from self._passed_to(index, index - 1)

    def sends_of(self, index: int) -> Iterator[tuple[int, int, int]]:
        """All parts but its own from the source, then what it passes on."""
        if index == 0:
            for chunk in range(self._part_start(1), self.num_chunks):
                yield chunk - self._part_start(1), self._owner(chunk), chunk
        if index + 1 < self.num_members:
            yield from self._passed_to(index + 1, index + 1)

    def _passed_to(self, index: int, peer: int) -> Iterator[tuple[int, int, int]]:
        """What goes round and comes to member `index`: step, `peer`, chunk.

        In rounds 0, 1, … these are the parts of the members to its left, near to far.
        """
        passed = []
        for chunk in range(self.num_chunks):
            part = self._owner(chunk)
            if part != index:
                turn = (index - 1 - part) % self.num_members
                offset = chunk - self._part_start(part)
                step = self._num_scattered + turn * self._round_steps + offset
                passed.append((step, peer, chunk))
        return iter(sorted(passed))

    def _owner(self, chunk: int) -> int:
        """Whose part a chunk is in."""
        return ((chunk + 1) * self.num_members - 1) // self.num_chunks

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
