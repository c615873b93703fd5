"""What moves when in a multicast: the promise that every kind of plan keeps."""

import abc
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import ClassVar

from jscale.core.errors import ConfigError
from jscale.core.ids import ChunkIndex, WorkerId


@dataclasses.dataclass(frozen=True, order=True)
class Transfer:
    """One chunk on its way from a member that holds it to one that does not."""

    step: int
    source: WorkerId
    target: WorkerId
    chunk: ChunkIndex


@dataclasses.dataclass(frozen=True)
class MulticastPlan(abc.ABC):
    """Brings every chunk from those who hold it to each other member, exactly once.

    Steps number the sends of a member and say what it must hold before each; they are
    not a clock: a member goes on to its next send as soon as it holds that chunk. In a
    step a member sends at most one chunk and receives at most one, and it sends only
    what it received in an earlier step.

    Each member asks only about itself; nobody computes the whole plan.

    Args:
      members: workers by id, sources first; at least two, all different.
      num_chunks: how many chunks, numbered from 0; at least one.
    """

    kind: ClassVar[str]
    """The name of this kind of plan in `PLAN_KINDS`."""

    members: tuple[WorkerId, ...]
    num_chunks: int

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise ConfigError(
                f"multicast among {list(self.members)}: name one source and at least "
                "one target"
            )
        if len(set(self.members)) != len(self.members):
            twice = sorted({m for m in self.members if self.members.count(m) > 1})
            raise ConfigError(f"multicast: {twice} named twice, name each member once")
        if self.num_chunks < 1:
            raise ConfigError(f"multicast of {self.num_chunks} chunks: give at least 1")

    @property
    @abc.abstractmethod
    def num_steps(self) -> int:
        """Steps until every member holds every chunk."""

    @abc.abstractmethod
    def incoming_at(self, index: int, step: int) -> tuple[int, int] | None:
        """What member `index` receives: the member it comes from, and the chunk."""

    @abc.abstractmethod
    def outgoing_at(self, index: int, step: int) -> tuple[int, int] | None:
        """What member `index` sends: the member it goes to, and the chunk."""

    def receives_of(self, index: int) -> Iterator[tuple[int, int, int]]:
        """All that member `index` receives: step, source's index, chunk; by step.

        Kinds of many more steps than a member has transfers do it without the steps.
        """
        for step in range(self.num_steps):
            if (found := self.incoming_at(index, step)) is not None:
                yield step, *found

    def sends_of(self, index: int) -> Iterator[tuple[int, int, int]]:
        """All that member `index` sends: step, target's index, chunk; by step.

        As `receives_of`.
        """
        for step in range(self.num_steps):
            if (found := self.outgoing_at(index, step)) is not None:
                yield step, *found

    @property
    def num_members(self) -> int:
        """How many take part, the source included."""
        return len(self.members)

    @property
    def source(self) -> WorkerId:
        """The first of the sources."""
        return self.members[0]

    @property
    def sources(self) -> tuple[WorkerId, ...]:
        """Who holds every chunk from the start; member 0 alone in most kinds."""
        return self.members[:1]

    def fetches_of(self, index: int) -> range:
        """Chunks that member `index`, a source, lacks and asks its helper for."""
        del index
        return range(0)

    def helpers_of(self, index: int) -> tuple[WorkerId, ...]:
        """Whom member `index` asks for what did not come, the first of them first.

        They hold every chunk, and expect to be asked.
        """
        return self.sources if index >= len(self.sources) else ()

    @property
    def targets(self) -> tuple[WorkerId, ...]:
        """Who is to get every chunk."""
        return self.members[len(self.sources) :]

    @property
    def label(self) -> str:
        """The kind as people read it."""
        return self.kind

    @property
    def num_steps_min(self) -> int:
        """Steps that no plan can do without: b + ⌈log2(1 + ⌈N / k⌉)⌉ − 1.

        N targets receive b chunks each, at most N a step in all; and in step t, from 0,
        there are k 2^t members at most that can send. From one source that is Bar-Noy
        and Kipnis' b + ⌈log2(N + 1)⌉ − 1.

        Source: Bar-Noy and Kipnis, Broadcasting multiple messages in simultaneous
        send/receive systems, 1994, for k = 1.
        """
        targets_per_source = -(-len(self.targets) // len(self.sources))
        return self.num_chunks + targets_per_source.bit_length() - 1

    def incoming(self, member: WorkerId, step: int) -> Transfer | None:
        """What a member receives in a step, if anything.

        Raises:
          ConfigError: the worker is no member of this plan.
        """
        found = self.incoming_at(self.index_of(member), step)
        if found is None:
            return None
        source_index, chunk = found
        return Transfer(step, self.members[source_index], member, ChunkIndex(chunk))

    def outgoing(self, member: WorkerId, step: int) -> Transfer | None:
        """What a member sends in a step, if anything.

        Raises:
          ConfigError: the worker is no member of this plan.
        """
        found = self.outgoing_at(self.index_of(member), step)
        if found is None:
            return None
        target_index, chunk = found
        return Transfer(step, member, self.members[target_index], ChunkIndex(chunk))

    def receives(self, member: WorkerId) -> Iterator[Transfer]:
        """All that a member receives, in order of steps."""
        for step, source, chunk in self.receives_of(self.index_of(member)):
            yield Transfer(step, self.members[source], member, ChunkIndex(chunk))

    def sends(self, member: WorkerId) -> Iterator[Transfer]:
        """All that a member sends, in order of steps."""
        for step, target, chunk in self.sends_of(self.index_of(member)):
            yield Transfer(step, member, self.members[target], ChunkIndex(chunk))

    def index_of(self, member: WorkerId) -> int:
        """Position of a member, 0 for the source.

        Raises:
          ConfigError: the worker is no member of this plan.
        """
        try:
            return self._indices[member]
        except KeyError:
            raise ConfigError(
                f"{member} is no member of this multicast: ask one of its "
                f"{self.num_members} members, {self.members[0]} to {self.members[-1]}"
            ) from None

    def describe(self) -> str:
        """The plan as a readable table: its cost, and the first and last steps."""
        # Imported here because the table is drawn from what this file defines.
        from jscale.plan.describe import describe

        return describe(self)

    @functools.cached_property
    def _indices(self) -> Mapping[WorkerId, int]:
        return {member: index for index, member in enumerate(self.members)}
