"""Who runs which block of which prompt next, while a target loads beside its source.

The pair has one queue of prompts. The target holds the first blocks and gets more; the
source holds all, and is the last stage of whatever the target began. Nothing is cut in
advance: whoever is free asks for its next turn.
"""

import abc
import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Turn:
    """What a worker runs next: so many blocks of the prompt at this place."""

    index: int
    num_blocks: int

    def __post_init__(self) -> None:
        assert self.index >= 0, self
        assert self.num_blocks >= 1, self


class PrefillPolicy(abc.ABC):
    """Decides a pair's turns; a frozen value. Both are asked whenever they are free.

    `waiting` has, for each prompt that neither runs at the moment, in order of arrival,
    how many of its blocks are done; `num_blocks` is what the model has, `num_loaded`
    how many the target holds, from the first on. None: nothing to do for now.
    """

    @abc.abstractmethod
    def target_turn(
        self, waiting: Sequence[int], *, num_loaded: int, num_blocks: int
    ) -> Turn | None:
        """What the target runs next: no block that it does not hold."""

    @abc.abstractmethod
    def source_turn(
        self, waiting: Sequence[int], *, num_loaded: int, num_blocks: int
    ) -> Turn | None:
        """What the source runs next, which finishes the prompt."""


@dataclasses.dataclass(frozen=True)
class ZigZagPolicy(PrefillPolicy):
    """One block of the first prompt that can go on; the source finishes the earliest.

    The target comes back to a prompt as often as its next block is there: the longer
    the source is busy, the deeper the prompts behind are done already. With the first
    of 2 blocks loaded, two prompts end after 3 block times in place of 4: the source
    runs both blocks of the first, the target block 0 of the second meanwhile.

    Source: BlitzScale (arXiv 2412.17246, section 5.2), the rule without the integer
    program; there for layers, here for blocks.
    """

    def target_turn(
        self, waiting: Sequence[int], *, num_loaded: int, num_blocks: int
    ) -> Turn | None:
        """First come, first served, among those whose next block is loaded."""
        for index, num_done in enumerate(waiting):
            if num_done < num_loaded:
                return Turn(index, 1)
        return None

    def source_turn(
        self, waiting: Sequence[int], *, num_loaded: int, num_blocks: int
    ) -> Turn | None:
        """The earliest, to its end."""
        return Turn(0, num_blocks - waiting[0]) if waiting else None


@dataclasses.dataclass(frozen=True)
class StaticHalvesPolicy(PrefillPolicy):
    """Best effort: what the target holds when a prompt begins, up to half, is its part.

    A pipeline of two stages: every prompt goes through the target first, and the source
    waits for it. What is loaded meanwhile helps later prompts only.
    """

    def target_turn(
        self, waiting: Sequence[int], *, num_loaded: int, num_blocks: int
    ) -> Turn | None:
        """All of its part of the first prompt that has not begun."""
        part = min(num_loaded, num_blocks // 2)
        for index, num_done in enumerate(waiting):
            if not num_done and part:
                return Turn(index, part)
        return None

    def source_turn(
        self, waiting: Sequence[int], *, num_loaded: int, num_blocks: int
    ) -> Turn | None:
        """The earliest that the target has done its part of."""
        has_target = min(num_loaded, num_blocks // 2) > 0
        for index, num_done in enumerate(waiting):
            if num_done or not has_target:
                return Turn(index, num_blocks - num_done)
        return None


@dataclasses.dataclass(frozen=True)
class SourceAlonePolicy(PrefillPolicy):
    """Load, then serve: the target does nothing, as long as it is asked here."""

    def target_turn(
        self, waiting: Sequence[int], *, num_loaded: int, num_blocks: int
    ) -> Turn | None:
        """Nothing."""
        return None

    def source_turn(
        self, waiting: Sequence[int], *, num_loaded: int, num_blocks: int
    ) -> Turn | None:
        """The earliest, to its end."""
        return Turn(0, num_blocks - waiting[0]) if waiting else None
