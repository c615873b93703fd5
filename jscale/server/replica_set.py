"""Which replicas a router knows, and which of them is next; pure."""

import heapq
from collections import Counter, defaultdict

from jscale.cluster.gateway_messages import Replica, ReplicasChanged
from jscale.core.ids import PipelineId, WorkerId

NUM_STALE_MIN = 64
"""So many entries of a heap may be out of date before they are worth a sweep."""

Rank = tuple[bool, float, PipelineId]
"""Local before pipelined, then the smaller share of its capacity, then the older."""


class ReplicaSet:
    """Replicas, who of their heads is attached, who rests, and what each runs.

    A heap holds the ranks of those that have room. Whatever changes a rank adds the new
    one; an entry that is no longer its replica's rank is dropped when it comes up. So
    every change and every choice is O(log replicas), amortised. Part of a `Router`.
    """

    def __init__(self) -> None:
        self._replicas: dict[PipelineId, Replica] = {}
        self._of_head: defaultdict[WorkerId, set[PipelineId]] = defaultdict(set)
        self._attached: set[WorkerId] = set()
        self._num_usable = 0
        self._outstanding: Counter[PipelineId] = Counter()
        self._rests_until_ns: dict[PipelineId, int] = {}
        self._wakes: list[tuple[int, PipelineId]] = []
        self._ranks: dict[PipelineId, Rank] = {}
        self._heap: list[Rank] = []

    @property
    def is_usable(self) -> bool:
        """Some replica's head is attached."""
        return self._num_usable > 0

    def __contains__(self, pipeline: PipelineId) -> bool:
        return pipeline in self._replicas

    def find(self, pipeline: PipelineId) -> Replica | None:
        """The replica, if it is open."""
        return self._replicas.get(pipeline)

    def outstanding(self, pipeline: PipelineId) -> int:
        """How many sequences are booked on it."""
        return self._outstanding[pipeline]

    def change(self, change: ReplicasChanged) -> None:
        """Some are open now, others no longer. O(what changed), a snapshot O(all)."""
        opened = {replica.pipeline for replica in change.opened}
        closed = self._replicas.keys() - opened if change.is_snapshot else change.closed
        for pipeline in closed:
            self._remove(pipeline)
        for replica in change.opened:
            rest_ns = self._rests_until_ns.get(replica.pipeline)
            self._remove(replica.pipeline)
            self._replicas[replica.pipeline] = replica
            self._of_head[replica.head].add(replica.pipeline)
            self._num_usable += replica.head in self._attached
            if rest_ns is not None:
                self._rests_until_ns[replica.pipeline] = rest_ns
            self._rank(replica.pipeline)

    def attach(self, head: WorkerId) -> None:
        """Its replicas can be sent to."""
        if head not in self._attached:
            self._attached.add(head)
            self._num_usable += len(self._of_head.get(head, ()))
            self._rank_all_of(head)

    def detach(self, head: WorkerId) -> None:
        """Its replicas cannot be sent to."""
        if head in self._attached:
            self._attached.remove(head)
            self._num_usable -= len(self._of_head.get(head, ()))
            self._rank_all_of(head)

    def rest(self, pipeline: PipelineId, until_ns: int) -> None:
        """It is not chosen before that time; no more if it is not open."""
        if pipeline in self._replicas:
            self._rests_until_ns[pipeline] = until_ns
            heapq.heappush(self._wakes, (until_ns, pipeline))
            self._rank(pipeline)

    def book(self, pipeline: PipelineId) -> None:
        """It runs one sequence more. It need not be known."""
        self._outstanding[pipeline] += 1
        self._rank(pipeline)

    def release(self, pipeline: PipelineId) -> None:
        """It runs one sequence fewer."""
        self._outstanding[pipeline] -= 1
        if not self._outstanding[pipeline]:
            del self._outstanding[pipeline]
        self._rank(pipeline)

    def choose(self, now_ns: int) -> Replica | None:
        """The least loaded local replica with room, else the least loaded other.

        Returns None when none has room; of equals, the oldest.
        """
        while self._wakes and self._wakes[0][0] <= now_ns:
            until_ns, pipeline = heapq.heappop(self._wakes)
            if self._rests_until_ns.get(pipeline) == until_ns:
                del self._rests_until_ns[pipeline]
                self._rank(pipeline)
        while self._heap:
            rank = self._heap[0]
            if self._ranks.get(rank[2]) == rank:
                return self._replicas[rank[2]]
            heapq.heappop(self._heap)
        return None

    def _remove(self, pipeline: PipelineId) -> None:
        replica = self._replicas.pop(pipeline, None)
        if replica is None:
            return
        self._num_usable -= replica.head in self._attached
        self._of_head[replica.head].remove(pipeline)
        if not self._of_head[replica.head]:
            del self._of_head[replica.head]
        self._rests_until_ns.pop(pipeline, None)
        self._ranks.pop(pipeline, None)

    def _rank_all_of(self, head: WorkerId) -> None:
        for pipeline in self._of_head.get(head, ()):
            self._rank(pipeline)

    def _rank(self, pipeline: PipelineId) -> None:
        """Brings the heap up to date with one replica."""
        replica = self._replicas.get(pipeline)
        outstanding = self._outstanding[pipeline]
        if (
            replica is None
            or replica.head not in self._attached
            or pipeline in self._rests_until_ns
            or outstanding >= replica.capacity
        ):
            self._ranks.pop(pipeline, None)
            return
        rank = (not replica.is_local, outstanding / replica.capacity, pipeline)
        if self._ranks.get(pipeline) != rank:
            self._ranks[pipeline] = rank
            heapq.heappush(self._heap, rank)
        if len(self._heap) > 2 * len(self._ranks) + NUM_STALE_MIN:
            self._heap = sorted(self._ranks.values())
