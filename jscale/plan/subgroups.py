"""Several sources: a sub-group of targets for each, every one in another order."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence

from jscale.core.errors import ConfigError
from jscale.core.ids import WorkerId
from jscale.plan.multicast_plan import MulticastPlan

HELPERS_MAX = 3
"""Sources that a target may ask, so that two may be lost; each is connected to it."""


@dataclasses.dataclass(frozen=True)
class SubgroupPlan(MulticastPlan):
    """Plans of one source each, side by side, with circularly shifted chunk orders.

    Of g sub-groups, the i-th begins with chunk ⌊i b / g⌋ and goes round. Hence the
    sources let go of different chunks at first: after ⌈b / g⌉ steps all targets
    *together* hold every chunk, and can execute it. The t-th targets of all sub-groups
    do so not much later: for binomial plans, less than 2 ⌈log2 N⌉ steps.

    It takes b + ⌈log2(1 + ⌈N / k⌉)⌉ − 1 steps from k sources to N targets where
    sub-groups are binomial and differ in size by one at most: the least there can be.

    Source: λScale (arXiv 2502.09922, section 4.2, Algorithm 1), for any number of
    sources and of targets; there, blocks come in k equal parts, and sub-groups are
    equal powers of two.

    Args:
      members: all sources first, then all targets.
      num_chunks: how many chunks, numbered from 0.
      subgroups: a plan for each sub-group. Together they reach every target. A source
        without a sub-group sends nothing by plan, and stands by.
      num_leading: that many chunks go first, and in order, in every sub-group: what all
        need before anything else (compiled executables). The others are shifted.
      lacking: sources that lack those, and ask the first source that does not.

    Raises:
      ConfigError: as for every plan; a sub-group or num_leading does not fit.
    """

    kind = "subgroups"

    subgroups: tuple[MulticastPlan, ...]
    num_leading: int = 0
    lacking: tuple[WorkerId, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.num_leading <= self.num_chunks:
            raise ConfigError(
                f"multicast with {self.num_leading} leading of {self.num_chunks} "
                f"chunks: give 0 to {self.num_chunks}"
            )
        sources = [plan.source for plan in self.subgroups]
        targets = [target for plan in self.subgroups for target in plan.targets]
        is_complete = sorted(targets) == sorted(self.targets)
        spares = set(self.sources).difference(sources)
        if not is_complete or len(sources) + len(spares) != len(self.sources):
            raise ConfigError(
                f"multicast in sub-groups from {sources} to {targets}: name each of "
                f"{list(self.targets)} in one sub-group, and each source at most once"
            )
        assert not self.lacking or self._first_whole, self.lacking
        assert all(plan.num_chunks == self.num_chunks for plan in self.subgroups)

    @property
    def label(self) -> str:
        """`3 × binomial`."""
        return f"{len(self.subgroups)} × {self.subgroups[0].label}"

    @property
    def sources(self) -> tuple[WorkerId, ...]:
        """Who holds every chunk from the start."""
        num_targets = sum(len(plan.targets) for plan in self.subgroups)
        return self.members[: self.num_members - num_targets]

    def helpers_of(self, index: int) -> tuple[WorkerId, ...]:
        """The source of its sub-group; then others, each sub-group different ones.

        A source that lacks what leads has one: the first that does not.
        """
        number = self._subgroup_of.get(index)
        if index < len(self.sources):
            return self._first_whole if self.members[index] in self.lacking else ()
        if number is None:
            return ()
        first = self.sources.index(self.subgroups[number].source)
        in_turn = (*self.sources[first:], *self.sources[:first])
        return in_turn[:HELPERS_MAX]

    def fetches_of(self, index: int) -> range:
        """Those that lead, where it lacks them."""
        is_lacking = self.members[index] in self.lacking
        return range(self.num_leading if is_lacking else 0)

    @functools.cached_property
    def num_steps(self) -> int:
        """Steps until every member holds every chunk."""
        return max(plan.num_steps for plan in self.subgroups)

    def incoming_at(self, index: int, step: int) -> tuple[int, int] | None:
        """What the plan of the member's sub-group says, in the sub-group's order."""
        number = self._subgroup_of.get(index)
        if number is None:
            return None
        plan = self.subgroups[number]
        found = plan.incoming_at(plan.index_of(self.members[index]), step)
        return None if found is None else self._seen_from_all(number, *found)

    def outgoing_at(self, index: int, step: int) -> tuple[int, int] | None:
        """What the plan of the member's sub-group says, in the sub-group's order."""
        number = self._subgroup_of.get(index)
        if number is None:
            return None
        plan = self.subgroups[number]
        found = plan.outgoing_at(plan.index_of(self.members[index]), step)
        return None if found is None else self._seen_from_all(number, *found)

    def receives_of(self, index: int) -> Iterator[tuple[int, int, int]]:
        """What the plan of the member's sub-group says, in the sub-group's order."""
        if (number := self._subgroup_of.get(index)) is not None:
            plan = self.subgroups[number]
            for step, *found in plan.receives_of(plan.index_of(self.members[index])):
                yield step, *self._seen_from_all(number, *found)

    def sends_of(self, index: int) -> Iterator[tuple[int, int, int]]:
        """What the plan of the member's sub-group says, in the sub-group's order."""
        if (number := self._subgroup_of.get(index)) is not None:
            plan = self.subgroups[number]
            for step, *found in plan.sends_of(plan.index_of(self.members[index])):
                yield step, *self._seen_from_all(number, *found)

    def _seen_from_all(self, number: int, peer: int, turn: int) -> tuple[int, int]:
        """A peer's index in the whole, and the chunk whose turn it is."""
        peer_index = self.index_of(self.subgroups[number].members[peer])
        if turn < self.num_leading:
            return peer_index, turn
        num_shifted = self.num_chunks - self.num_leading
        shift = number * num_shifted // len(self.subgroups)
        offset = (turn - self.num_leading + shift) % num_shifted
        return peer_index, self.num_leading + offset

    @property
    def _first_whole(self) -> tuple[WorkerId, ...]:
        return tuple(each for each in self.sources if each not in self.lacking)[:1]

    @functools.cached_property
    def _subgroup_of(self) -> Mapping[int, int]:
        """Number of the sub-group of each member that is in one."""
        return {
            self.index_of(member): number
            for number, plan in enumerate(self.subgroups)
            for member in plan.members
        }


def deal(
    sources: Sequence[WorkerId], targets: Sequence[WorkerId]
) -> tuple[tuple[WorkerId, ...], ...]:
    """Sub-groups, each its source first, that differ in size by one at most.

    Targets are dealt out in turn, so that neighbours, which together hold the model
    first, are in different sub-groups: from a and b to v, w, x are (a, v, x) and
    (b, w). Sources beyond the number of targets get none.
    """
    num_subgroups = min(len(sources), len(targets))
    return tuple(
        (source, *targets[number::num_subgroups])
        for number, source in enumerate(sources[:num_subgroups])
    )
