"""The hypercube: a binomial pipeline for powers of two."""

import dataclasses
import functools

from jscale.core.errors import ConfigError
from jscale.plan.multicast_plan import MulticastPlan


@dataclasses.dataclass(frozen=True)
class HypercubePlan(MulticastPlan):
    """Members on the corners of a cube exchange chunks along one dimension a step.

    In step t member i meets i XOR 2^(t mod l), l = log2 N: the source sends chunk t,
    every other member the newest chunk it has. As few steps as there can be.

    Source: RDMC (DSN 2018, section 4.3), λScale (arXiv 2502.09922, section 4.2).

    Raises:
      ConfigError: the number of members is no power of two.
    """

    kind = "hypercube"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_members & (self.num_members - 1):
            raise ConfigError(
                f"hypercube multicast of {self.num_members} members: needs a power of "
                "two, choose kind 'binomial' for any number"
            )

    @functools.cached_property
    def num_steps(self) -> int:
        """Steps until every member holds every chunk: the least possible."""
        return self.num_steps_min

    def incoming_at(self, index: int, step: int) -> tuple[int, int] | None:
        """What the neighbour along this step's dimension sends. O(log N)."""
        neighbour = index ^ (1 << step % self._num_dimensions)
        sent = self.outgoing_at(neighbour, step)
        return None if sent is None else (neighbour, sent[1])

    def outgoing_at(self, index: int, step: int) -> tuple[int, int] | None:
        """The newest chunk this member holds. O(log N)."""
        neighbour = index ^ (1 << step % self._num_dimensions)
        chunk = min(step - self._age(index, step), self.num_chunks - 1)
        if neighbour == 0 or chunk < 0 or not 0 <= step < self.num_steps:
            return None
        return neighbour, chunk

    @property
    def _num_dimensions(self) -> int:
        return self.num_members.bit_length() - 1

    def _age(self, index: int, step: int) -> int:
        """Steps since the newest chunk of a member left the source; 0 at the source.

        A chunk moves along one dimension a step, in cyclic order, so to reach a member
        it had to set out along the dimension visited longest ago among those in which
        the member differs from the source.
        """
        for age in range(self._num_dimensions, 0, -1):
            if index >> (step - age) % self._num_dimensions & 1:
                return age
        return 0
