"""The heaps of a router against lists that are searched from end to end."""

import random

import pytest

from jscale.cluster.gateway_messages import Replica, ReplicasChanged
from jscale.core.ids import PipelineId, SequenceId, WorkerId
from jscale.engine.request import Request
from jscale.server.live import LiveSequence
from jscale.server.replica_set import ReplicaSet
from jscale.server.waiting import Waiting

HEADS = [WorkerId(f"w{index}") for index in range(3)]


class DumbReplicaSet:
    """The same promise, kept by looking at every replica each time."""

    def __init__(self):
        self.replicas = {}
        self.attached = set()
        self.rests = {}
        self.outstanding = {}

    def change(self, change):
        if change.is_snapshot:
            self.replicas = {}
        for pipeline in change.closed:
            self.replicas.pop(pipeline, None)
        for replica in change.opened:
            self.replicas[replica.pipeline] = replica
        self.rests = {p: ns for p, ns in self.rests.items() if p in self.replicas}

    def rest(self, pipeline, until_ns):
        if pipeline in self.replicas:
            self.rests[pipeline] = until_ns

    def book(self, pipeline, count=1):
        self.outstanding[pipeline] = self.outstanding.get(pipeline, 0) + count

    @property
    def is_usable(self):
        return any(r.head in self.attached for r in self.replicas.values())

    def choose(self, now_ns):
        with_room = [
            replica
            for replica in self.replicas.values()
            if replica.head in self.attached
            and self.rests.get(replica.pipeline, 0) <= now_ns
            and self.outstanding.get(replica.pipeline, 0) < replica.capacity
        ]
        return min(
            with_room,
            key=lambda replica: (
                not replica.is_local,
                self.outstanding.get(replica.pipeline, 0) / replica.capacity,
                replica.pipeline,
            ),
            default=None,
        )


def a_replica(rng, pipeline):
    head = rng.choice(HEADS)
    return Replica(
        pipeline=PipelineId(pipeline),
        head=head,
        serve_address=f"{head}:1",
        is_local=rng.random() < 0.4,
        capacity=rng.randrange(4),
        workers=(head,),
    )


def a_change(rng):
    numbers = rng.sample(range(8), rng.randrange(5))
    split = rng.randint(0, len(numbers))
    return ReplicasChanged(
        opened=tuple(a_replica(rng, number) for number in numbers[:split]),
        closed=tuple(PipelineId(number) for number in numbers[split:]),
        is_snapshot=rng.random() < 0.2,
    )


@pytest.mark.parametrize("seed", range(200))
def test_the_choice_is_that_of_a_search_through_all(seed):
    rng = random.Random(seed)
    clever, dumb = ReplicaSet(), DumbReplicaSet()
    booked = []
    for now_ns in range(200):
        match rng.randrange(6):
            case 0:
                change = a_change(rng)
                clever.change(change)
                dumb.change(change)
            case 1:
                head = rng.choice(HEADS)
                clever.attach(head)
                dumb.attached.add(head)
            case 2:
                head = rng.choice(HEADS)
                clever.detach(head)
                dumb.attached.discard(head)
            case 3:
                pipeline = PipelineId(rng.randrange(8))
                until_ns = now_ns + rng.randrange(9)
                clever.rest(pipeline, until_ns)
                dumb.rest(pipeline, until_ns)
            case 4 if booked:
                pipeline = booked.pop(rng.randrange(len(booked)))
                clever.release(pipeline)
                dumb.book(pipeline, -1)
            case _:
                chosen = clever.choose(now_ns)
                if chosen is not None:
                    booked.append(chosen.pipeline)
                    clever.book(chosen.pipeline)
                    dumb.book(chosen.pipeline)
        assert clever.choose(now_ns) == dumb.choose(now_ns)
        assert clever.is_usable == dumb.is_usable
        assert all(
            clever.outstanding(PipelineId(p)) == dumb.outstanding.get(p, 0)
            for p in range(8)
        )


def waiter(arrival):
    return LiveSequence(
        SequenceId(f"s{arrival}"), Request(SequenceId("r"), (1,)), arrival=arrival
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_queue_is_that_of_a_sorted_list(seed):
    rng = random.Random(seed)
    sequences = [waiter(arrival) for arrival in range(300)]
    queue, dumb = Waiting(), []
    for live in rng.sample(sequences, len(sequences)):
        queue.add(live)
        dumb = sorted([*dumb, live], key=lambda waiting: waiting.arrival)
        if rng.random() < 0.6:
            gone = rng.choice(sequences)
            queue.discard(gone)
            dumb = [waiting for waiting in dumb if waiting is not gone]
        if dumb and rng.random() < 0.1:
            assert queue.pop() is dumb.pop(0)
        assert [*queue] == dumb
        assert len(queue) == len(dumb)
    assert [queue.pop() for _ in range(len(queue))] == dumb
