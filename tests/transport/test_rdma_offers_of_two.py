"""Offers between two ends: no buffer too few, nothing left over, in any order."""

import collections
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jscale.transport.rdma_endpoint import Region
from jscale.transport.rdma_offers import OfferedChunk, OfferedChunks
from jscale.transport.rdma_wire import Place

REGION = Region(0, 0x1000, 4096, (7,))
CHUNK = OfferedChunk(memoryview(b"x"), Place(0, 0), False)


class OffersOfTwo:
    """One direction: one end offers and writes, the other grants and lands.

    `depths` are those of the two ends, which need not be the same.
    """

    def __init__(self, *depths):
        self.source_depth, self.target_depth = depths
        self.offers = OfferedChunks(self.source_depth, 1)
        self.offers.told(REGION)
        self.num_offered = 0
        self.stream, self.answers, self.writes = (collections.deque() for _ in "123")
        self.uncompleted = collections.deque()
        self.granted = collections.deque()
        self.arrived = set()
        self.done = []

    @property
    def steps(self):
        """What can happen next."""
        has_place = self.stream and len(self.granted) < self.target_depth
        return [
            step
            for step, is_possible in (
                (self.offer, not self.offers.is_full),
                (self.grant, has_place),
                (self.refuse, self.stream),
                (self.answer, self.answers),
                (self.arrive, self.writes),
                (self.complete, self.uncompleted),
                (self.land, self.granted and self.granted[0] in self.arrived),
            )
            if is_possible
        ]

    def offer(self):
        self.stream.append(self.offers.open(CHUNK))
        self.num_offered += 1

    def grant(self):
        number = self.stream.popleft()
        self.granted.append(number)
        self.say(number, is_granted=True)

    def refuse(self):
        number = self.stream.popleft()
        self.done.append(number)
        self.say(number, is_granted=False)

    def say(self, number, *, is_granted):
        self.answers.append((number, is_granted))
        assert len(self.answers) <= self.source_depth, "no buffer for an answer"

    def answer(self):
        number, is_granted = self.answers.popleft()
        if is_granted:
            (write,) = self.offers.granted(number, Place(0, 8))
            self.writes.append(write.number)
            assert len(self.writes) <= self.target_depth, "no buffer for a write"
        else:
            self.offers.refused(number)

    def arrive(self):
        number = self.writes.popleft()
        self.arrived.add(number)
        self.uncompleted.append(number)

    def complete(self):
        self.offers.was_written(self.uncompleted.popleft())

    def land(self):
        number = self.granted.popleft()
        self.arrived.remove(number)
        self.done.append(number)

    def come_to_rest(self):
        """Goes on without new offers for as long as something can happen."""
        while steps := [step for step in self.steps if step != self.offer]:
            steps[0]()


def assert_all_done(pair):
    pair.come_to_rest()
    assert sorted(pair.done) == list(range(pair.num_offered))
    assert len(pair.offers) == 0
    assert not pair.arrived


@pytest.mark.parametrize("depths", list(itertools.product([1, 2], repeat=2)))
def test_whatever_happens_first_each_offer_ends_and_every_buffer_is_there(depths):
    for choices in itertools.product(range(4), repeat=6):
        pair = OffersOfTwo(*depths)
        for choice in choices:
            steps = pair.steps
            assert steps, "nothing can happen any more"
            steps[choice % len(steps)]()
        assert_all_done(pair)


@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.lists(st.integers(0, 6), max_size=300),
)
def test_ends_of_any_depth_agree(source_depth, target_depth, choices):
    pair = OffersOfTwo(source_depth, target_depth)
    for choice in choices:
        pair.steps[choice % len(pair.steps)]()
    assert_all_done(pair)
