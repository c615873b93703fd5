"""Offers, grants and refusals, in every order."""

import itertools

import pytest

from jscale.core.errors import TransportError
from jscale.transport.rdma_endpoint import Region
from jscale.transport.rdma_offers import OfferedChunk, OfferedChunks
from jscale.transport.rdma_wire import Place

REGION = Region(3, 0x1000, 4096, (7, 8))
HERE = Place(0, 64)


def offered(num_rails=2, limit=4, is_pulled=False, number=1):
    offers = OfferedChunks(limit, num_rails)
    for _ in range(number):
        offers.open(OfferedChunk(memoryview(bytes(100)), HERE, is_pulled))
    return offers


def test_a_granted_chunk_is_written_where_the_grant_says():
    offers = offered()
    assert offers.told(REGION) == []
    (write,) = offers.granted(0, Place(3, 96))
    assert (write.address, write.rkey, write.size_bytes) == (0x1060, 7, 100)
    assert (write.number, write.rail, write.source) == (0, 0, HERE)
    assert len(offers) == 1
    offers.was_written(0)
    assert len(offers) == 0


def test_a_grant_waits_for_the_memory_that_it_names():
    offers = offered(number=3)
    assert offers.granted(1, Place(3, 0)) == []
    assert offers.granted(0, Place(4, 0)) == []
    assert [write.number for write in offers.told(REGION)] == [1]
    (late,) = offers.told(Region(4, 0x9000, 4096, (1, 2)))
    assert (late.number, late.address) == (0, 0x9000)


def test_the_last_of_each_rail_is_known():
    for order in itertools.permutations(range(4)):
        offers = offered(number=4)
        offers.told(REGION)
        left = {0: 2, 1: 2}
        for number in order:
            (write,) = offers.granted(number, Place(3, 0))
            assert write.rail == number % 2
            left[write.rail] -= 1
            assert write.is_last == (left[write.rail] == 0)
            assert offers.has_unanswered(write.rail) == (left[write.rail] > 0)


def test_so_many_are_open_and_no_more():
    offers = offered(number=4)
    assert offers.is_full
    offers.told(REGION)
    offers.granted(0, Place(3, 0))
    assert offers.is_full, "a write that has not arrived needs its buffer there"
    offers.was_written(0)
    assert not offers.is_full
    assert offers.open(OfferedChunk(memoryview(b"x"), HERE, False)) == 4


def test_a_pulled_chunk_is_done_with_when_it_was_read():
    offers = offered(is_pulled=True)
    offers.was_read(0)
    assert len(offers) == 0


@pytest.mark.parametrize("place", [Place(3, 4000), Place(3, 1 << 40)])
def test_a_grant_outside_of_the_memory_is_refused(place):
    offers = offered()
    offers.told(REGION)
    with pytest.raises(TransportError, match="100 bytes at"):
        offers.granted(0, place)


def answers(offers):
    return {
        "grant": lambda number: offers.granted(number, Place(3, 0)),
        "refusal": offers.refused,
        "reading": offers.was_read,
    }


@pytest.mark.parametrize("is_pulled", [False, True])
@pytest.mark.parametrize("first", ["grant", "refusal", "reading"])
@pytest.mark.parametrize("second", ["grant", "refusal", "reading"])
@pytest.mark.parametrize("is_told", [False, True])
def test_each_offer_is_answered_once(is_pulled, first, second, is_told):
    offers = offered(is_pulled=is_pulled)
    if is_told:
        offers.told(REGION)
    with pytest.raises(TransportError, match=r"was not|not made"):
        answers(offers)[first](1)
    is_answer = first == "refusal" or (first == "reading") == is_pulled
    if not is_answer:
        with pytest.raises(TransportError):
            answers(offers)[first](0)
        return
    answers(offers)[first](0)
    if (first, second) == ("grant", "grant") and not is_told:
        return  # The second stands; both wait for the memory.
    with pytest.raises(TransportError):
        answers(offers)[second](0)


def test_memory_on_fewer_rails_than_the_connection_is_refused():
    with pytest.raises(TransportError, match="all 2 rails"):
        offered().told(Region(3, 0, 4096, (7,)))


def test_bytes_to_read_lie_in_memory_that_is_known():
    offers = offered()
    assert not offers.knows(3)
    offers.told(REGION)
    assert offers.knows(3)
    with pytest.raises(TransportError, match="10 bytes at 4090"):
        offers.remote(Place(3, 4090), 10, 0)
    assert offers.remote(Place(3, 16), 10, 1) == (0x1010, 8)
