"""A peer that says anything over RDMA's control words and notes: refused, or obeyed
within what was offered and told."""

import random

import pytest

from jscale.core.errors import TransportError
from jscale.transport.rdma_endpoint import (
    Bye,
    Endpoint,
    NoteReader,
    RailEndpoint,
    Ready,
    Refused,
    Region,
    encode_note,
)
from jscale.transport.rdma_flow import StreamCredit
from jscale.transport.rdma_offers import OfferedChunk, OfferedChunks
from jscale.transport.rdma_wire import (
    Offer,
    Place,
    Word,
    WordKind,
    decode_offer,
    decode_words,
    encode_offer,
    encode_word,
)
from tests.transport.mutation import mutations

NUM_MUTATIONS = 2000
NUM_WALKS = 200
NOTE_SIZE_BYTES_MAX = 4 + 65535
RAIL = RailEndpoint(bytes(range(16)), 3, 17, 0xABCDEF, 5, 16)
NOTES = (
    Endpoint((RAIL, RAIL)),
    Region(1, 1 << 40, 1 << 30, (0xDEAD, 0xBEEF)),
    Ready(),
    Refused("no receive buffers"),
    Bye(12345, "größer als erlaubt"),
)
WORDS = (
    Word(WordKind.GRANT, 7, Place(1, 4096)),
    Word(WordKind.REFUSE, 8),
    Word(WordKind.TAKEN, 9),
    Word(WordKind.CREDIT, 8),
)


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.kind.name)
def test_a_changed_word_is_refused_or_says_what_its_bytes_say(word):
    for changed in mutations(encode_word(word), NUM_MUTATIONS):
        try:
            decoded = decode_words(changed)
        except TransportError:
            continue
        assert b"".join(map(encode_word, decoded)) == changed


@pytest.mark.parametrize("place", [None, Place(1, 4096)])
def test_a_changed_offer_is_refused_or_says_what_its_bytes_say(place):
    for changed in mutations(encode_offer(Offer(1 << 20, 99, place)), NUM_MUTATIONS):
        try:
            decoded = decode_offer(changed)
        except TransportError:
            continue
        assert encode_offer(decoded) == changed


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_changed_notes_are_refused_and_little_is_kept_of_them(size):
    """Even of one that claims to be longer than any is."""
    num_whole = 0
    for changed in mutations(b"".join(map(encode_note, NOTES)), NUM_MUTATIONS):
        reader = NoteReader()
        try:
            for start in range(0, len(changed), size):
                for note in reader.feed(changed[start : start + size]):
                    assert isinstance(note, Endpoint | Region | Ready | Refused | Bye)
                    num_whole += 1
                assert len(reader._left) < NOTE_SIZE_BYTES_MAX
        except TransportError:
            continue
    assert num_whole > NUM_MUTATIONS / 2  # Else this tests nothing.


def test_rubbish_is_refused_or_waited_for():
    rng = random.Random(5)
    for _ in range(NUM_MUTATIONS):
        data = rng.randbytes(rng.randint(1, 64))
        for read in (decode_words, decode_offer, NoteReader().feed):
            try:
                read(data)
            except TransportError:
                continue


def test_whatever_a_peer_answers_only_what_was_offered_goes_where_it_may():
    num_written = num_refused = 0
    for seed in range(NUM_WALKS):
        walk = Walk(seed)
        try:
            for _ in range(60):
                walk.step()
        except TransportError:  # This ends a connection.
            num_refused += 1
        num_written += walk.num_written
    assert num_written > NUM_WALKS
    assert num_refused > NUM_WALKS / 2  # Else this tests nothing.


class Walk:
    """Offers of one end, which are answered at random, now and then wrongly."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.offers = OfferedChunks(8, 2)
        self.is_pulled = seed % 4 == 0
        self.regions, self.open, self.being_written = {}, {}, []
        self.num_written = 0

    def step(self):
        rng, offers = self.rng, self.offers
        is_wrong = rng.random() < 0.03
        number = rng.choice([*self.open, 99]) if not is_wrong else rng.getrandbits(32)
        match rng.randrange(7):
            case 0 | 1 if not offers.is_full:
                place = Place(0, rng.randrange(9))
                chunk = OfferedChunk(memoryview(bytes(1000)), place, self.is_pulled)
                self.open[offers.open(chunk)] = chunk
            case 2:
                keys = (rng.getrandbits(32), rng.getrandbits(32))
                told = Region(rng.randrange(3), rng.randrange(3) << 20, 5000, keys)
                self.regions[told.number] = told
                self.check(offers.told(told))
            case 3 | 4 if number != 99 and (not self.is_pulled or is_wrong):
                offset = 4001 if is_wrong else 4000
                place = Place(rng.randrange(3), rng.choice((0, offset)))
                self.check(offers.granted(number, place))
            case 5 if is_wrong or (self.is_pulled and number != 99):
                offers.was_read(number)
                assert self.is_pulled
                del self.open[number]
            case 6 if is_wrong or self.being_written:
                if is_wrong:
                    offers.refused(number)
                    del self.open[number]
                else:
                    offers.was_written(self.being_written.pop())
        assert len(offers) == len(self.open) + len(self.being_written)

    def check(self, writes):
        """Each chunk once, and within a region that the peer has told of."""
        for write in writes:
            chunk = self.open.pop(write.number)
            assert not self.is_pulled
            assert (write.source, write.size_bytes) == (chunk.place, 1000)
            assert any(
                region.address <= write.address <= region.address + 4000
                and write.rkey == region.rkeys[write.rail]
                for region in self.regions.values()
            )
            self.being_written.append(write.number)
            self.num_written += 1


def test_a_peer_never_gets_or_gives_more_credit_than_there_is():
    for seed in range(NUM_WALKS):
        rng = random.Random(seed)
        credit = StreamCredit(4)
        num_outside = num_here = 0
        for _ in range(100):
            match rng.randrange(4):
                case 0 if credit.may_send:
                    credit.sent()
                    num_outside += 1
                case 1:
                    number = rng.choice((0, 1, 2, 5, 1 << 31))
                    if obeyed(credit.granted, number):
                        num_outside -= number
                case 2:
                    num_here += obeyed(credit.came)
                case 3 if num_here:
                    credit.taken()
                    num_here -= 1
            assert 0 <= num_outside <= 4
            assert credit.may_send == 4 - num_outside
            assert num_here <= 4


def obeyed(act, *arguments):
    """Whether it was done; if not, it was a `TransportError`, and nothing else."""
    try:
        act(*arguments)
    except TransportError:
        return False
    return True
