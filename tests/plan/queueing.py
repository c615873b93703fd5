"""A small queueing loop on virtual time: what a scaling policy costs, who waits.

Workers take so many sequences at once, first come first served; a new one serves after
a scale-out's time. Those that leave take no more, and end what they run.
"""

import dataclasses
import heapq
import itertools
import math
from collections import deque

from jscale.core.units import NS_PER_MS, NS_PER_S
from jscale.plan.autoscale import Autoscaler
from jscale.plan.load_history import Load
from jscale.plan.scaling_policy import Fleet, ScalingPolicy

TICK_NS = 50 * NS_PER_MS
TAIL_NS = 40 * NS_PER_S
"""How long the loop goes on after the last request has come."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """What the loop needs to know of workers."""

    scale_out_ns: int = NS_PER_S
    sequences_per_worker: int = 8
    num_min: int = 1
    num_max: int = 32


@dataclasses.dataclass
class Outcome:
    """What became of it."""

    worker_ns: int = 0
    """Workers × time: serving, starting and ending what they run."""

    waits_ns: list[int] = dataclasses.field(default_factory=list)
    wanted: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    """When how many were wanted, where that changed."""

    @property
    def num_most(self) -> int:
        return max(number for _, number in self.wanted)

    @property
    def num_last(self) -> int:
        return self.wanted[-1][1]

    @property
    def num_turns(self) -> int:
        """How often scaling out followed scaling in."""
        numbers = [number for _, number in self.wanted]
        rises = [b > a for a, b in itertools.pairwise(numbers)]
        return sum(b and not a for a, b in itertools.pairwise(rises))

    @property
    def worker_s(self) -> float:
        return self.worker_ns / NS_PER_S

    def wait_s(self, share: float) -> float:
        """The quantile of waiting."""
        waits = sorted(self.waits_ns)
        return waits[min(int(share * len(waits)), len(waits) - 1)] / NS_PER_S


def serve(
    requests: list[tuple[int, int]], policy: ScalingPolicy, cluster: Cluster
) -> Outcome:
    """Serves requests, sorted pairs of arrival and service time."""
    loop = _Loop(requests, policy, cluster)
    while loop.now_ns < requests[-1][0] + TAIL_NS or loop.is_busy:
        loop.advance()
    return loop.outcome


class _Loop:
    def __init__(self, requests, policy, cluster):
        self.cluster = cluster
        self.autoscaler = Autoscaler(policy, scale_out_ns=cluster.scale_out_ns)
        self.outcome = Outcome(wanted=[(0, cluster.num_min)])
        self.now_ns = 0
        self.num_ready = cluster.num_min
        self.coming: deque[int] = deque()
        self.requests = deque(requests)
        self.waiting: deque[tuple[int, int]] = deque()
        self.running: list[int] = []
        self.num_arrived = self.num_finished = 0

    @property
    def is_busy(self):
        return bool(self.waiting or self.running)

    def advance(self):
        now_ns = self.now_ns + TICK_NS
        queues = (self.requests, [(ns,) for ns in self.running[:1]])
        now_ns = min([now_ns, *self.coming, *(q[0][0] for q in queues if q)])
        num_full = math.ceil(len(self.running) / self.cluster.sequences_per_worker)
        num_used = max(self.num_ready, num_full) + len(self.coming)
        self.outcome.worker_ns += num_used * (now_ns - self.now_ns)
        self.now_ns = now_ns
        self.finish()
        self.scale()
        self.start()

    def finish(self):
        while self.running and self.running[0] <= self.now_ns:
            heapq.heappop(self.running)
            self.num_finished += 1
        while self.coming and self.coming[0] <= self.now_ns:
            self.coming.popleft()
            self.num_ready += 1
        while self.requests and self.requests[0][0] <= self.now_ns:
            self.waiting.append(self.requests.popleft())
            self.num_arrived += 1
        self.start()

    def start(self):
        slots = self.num_ready * self.cluster.sequences_per_worker
        while self.waiting and len(self.running) < slots:
            arrived_ns, service_ns = self.waiting.popleft()
            self.outcome.waits_ns.append(self.now_ns - arrived_ns)
            heapq.heappush(self.running, self.now_ns + service_ns)

    def scale(self):
        load = Load(
            self.now_ns,
            num_waiting=len(self.waiting),
            num_running=len(self.running),
            num_arrived=self.num_arrived,
            num_finished=self.num_finished,
        )
        self.autoscaler.observe(load)
        last = self.outcome.num_last
        fleet = Fleet(
            num_ready=self.num_ready,
            num_coming=len(self.coming),
            num_wanted=last,
            sequences_per_worker=self.cluster.sequences_per_worker,
            scale_out_ns=self.autoscaler.scale_out_ns,
            num_min=self.cluster.num_min,
            num_max=self.cluster.num_max,
        )
        wanted = self.autoscaler.wanted(fleet, self.now_ns)
        if wanted != last:
            self.outcome.wanted.append((self.now_ns, wanted))
        for _ in range(wanted - self.num_ready - len(self.coming)):
            self.coming.append(self.now_ns + self.cluster.scale_out_ns)
        while self.coming and self.num_ready + len(self.coming) > wanted:
            self.coming.pop()
        self.num_ready = min(self.num_ready, wanted)
