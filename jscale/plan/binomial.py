"""The binomial pipeline for any number of members: as few steps as there can be."""

import dataclasses
import functools
from collections.abc import Sequence

from jscale.plan.multicast_plan import MulticastPlan


@dataclasses.dataclass(frozen=True)
class BinomialPlan(MulticastPlan):
    """Every link busy all the time: b + ⌈log2 N⌉ − 1 steps for any N.

    Time is cut into phases of q = ⌈log2 N⌉ rounds. In round k of each phase member r
    receives from r − skip_k and sends to r + skip_k (mod N), where the skips halve N,
    rounded up, down to 1: 1, 2, 4, 7 for N = 7. What it receives follows a schedule of
    q entries, the same in every phase but for q chunks more. For N = 8 and 64 chunks a
    member has 3 peers to receive from, 3 to send to, and 66 steps.

    A member works out its own schedule and those of the q members it sends to, each in
    O(log² N) once, and then reads every step in O(1).

    Source: Träff, Round-optimal n-block broadcast schedules in logarithmic time
    (arXiv 2312.11236), section 2. Two simplifications: the search for the receive
    schedule starts anew for each round instead of going on where it was (⌈log2 N⌉²
    instead of ⌈log2 N⌉ tries, 78 for N = 4096), and a send is read off the schedule of
    its target instead of being derived on its own.
    """

    kind = "binomial"

    @functools.cached_property
    def num_steps(self) -> int:
        """Steps until every member holds every chunk: the least possible."""
        return self.num_steps_min

    def incoming_at(self, index: int, step: int) -> tuple[int, int] | None:
        """What the schedule says for this round, moved on by q chunks a phase."""
        if index == 0 or not 0 <= step < self.num_steps:
            return None
        num_rounds, late = self._rounds
        phase, k = divmod(step + late, num_rounds)
        entry = receive_schedule(self.num_members, index)[k]
        chunk = min(entry + phase * num_rounds - late, self.num_chunks - 1)
        if chunk < 0:
            return None
        return (index - self._skips[k]) % self.num_members, chunk

    def outgoing_at(self, index: int, step: int) -> tuple[int, int] | None:
        """What the member that this one sends to in this round receives."""
        num_rounds, late = self._rounds
        k = (step + late) % num_rounds
        target = (index + self._skips[k]) % self.num_members
        received = self.incoming_at(target, step)
        return None if received is None else (target, received[1])

    @functools.cached_property
    def _rounds(self) -> tuple[int, int]:
        """Rounds in a phase; and how many of them are over before the first step.

        The last step ends a phase; the first may be in the midst of one.
        """
        num_rounds = len(self._skips) - 1
        return num_rounds, -(self.num_chunks - 1) % num_rounds

    @functools.cached_property
    def _skips(self) -> tuple[int, ...]:
        return skips_of(self.num_members)


def skips_of(num_members: int) -> tuple[int, ...]:
    """Distances between members that talk, a round each, and at last N itself.

    `skips_of(7)` is (1, 2, 4, 7).
    """
    skips = [num_members]
    while skips[-1] > 1:
        skips.append((skips[-1] + 1) // 2)
    return tuple(reversed(skips))


@functools.lru_cache(maxsize=8192)
def receive_schedule(num_members: int, index: int) -> tuple[int, ...]:
    """Which chunk a member other than the source receives in each round of a phase.

    One entry is its *base chunk*, the first chunk that reaches it, counted from the
    phase's first; the others are negative and count back into phases before. No two
    are equal modulo q, hence each chunk comes once. `receive_schedule(4, 3)`, (-1, 0),
    says that in the phase that starts at chunk 10, member 3 of 4 receives chunk 9 in
    round 0 and chunk 10 in round 1. O(log² N).
    """
    skips = skips_of(num_members)
    num_rounds = len(skips) - 1
    base = _base_chunk(index, skips)
    # What comes in round k is the base chunk of some member from r − skip_(k+1) to
    # r − skip_k. Looking from r + N keeps these positive; the members are distinct and
    # go down, so that no base chunk is met twice.
    unused = [k for k in range(num_rounds, -1, -1) if k != base]
    position = 2 * num_members
    schedule = []
    for k in range(num_rounds):
        low = num_members + index - skips[k + 1]
        high = min(num_members + index - skips[k], position - 1)
        found = _search(0, unused, low, high, skips)
        assert found is not None, (num_members, index, k)
        position, chunk = found
        unused.remove(chunk)
        # Index q stands for having gone all the way round: this phase's own chunk.
        schedule.append(base if chunk == num_rounds else chunk - num_rounds)
    return tuple(schedule)


def _base_chunk(index: int, skips: Sequence[int]) -> int:
    """The smallest of the skips that, taken greedily, sum up to a member's index."""
    rest = index
    for k in range(len(skips) - 2, -1, -1):
        if skips[k] == rest:
            return k
        if skips[k] < rest:
            rest -= skips[k]
    raise AssertionError(f"{index} has no base chunk among skips {skips}")


def _search(
    position: int, unused: Sequence[int], low: int, high: int, skips: Sequence[int]
) -> tuple[int, int] | None:
    """The first sum of decreasing unused skips from low to high, and its last skip."""
    for number, k in enumerate(unused):
        reached = position + skips[k]
        if reached <= low:
            found = _search(reached, unused[number + 1 :], low, high, skips)
            if found is not None:
                return found
        if low <= reached <= high:
            return reached, k
    return None
