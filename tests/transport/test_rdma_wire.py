"""What two ends say to each other: as it was said, or refused."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jscale.core.chunks import CHUNK_SIZE_BYTES_MAX
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

u8, u16, u24 = st.integers(1, 255), st.integers(0, 65535), st.integers(0, 0xFFFFFF)
u32, u64 = st.integers(0, 0xFFFFFFFF), st.integers(0, (1 << 64) - 1)
places = st.builds(Place, u16, u64)
words = st.one_of(
    st.builds(Word, st.just(WordKind.GRANT), u32, places),
    st.builds(
        Word,
        st.sampled_from([WordKind.REFUSE, WordKind.TAKEN, WordKind.CREDIT]),
        u32,
    ),
)
offers = st.builds(Offer, st.integers(0, CHUNK_SIZE_BYTES_MAX), u32, st.none() | places)
rails = st.builds(
    RailEndpoint,
    gid=st.binary(min_size=16, max_size=16),
    lid=u16,
    qp_num=st.integers(1, 0xFFFFFF),
    psn=u24,
    mtu=st.integers(1, 5),
    reads=u8,
)
regions = st.builds(
    Region,
    number=u16,
    address=st.integers(0, 1 << 63),
    size_bytes=st.integers(1, 1 << 62),
    rkeys=st.lists(u32, min_size=1, max_size=32).map(tuple),
)
notes = st.one_of(
    st.builds(Endpoint, st.lists(rails, min_size=1, max_size=32).map(tuple)),
    regions,
    st.just(Ready()),
    st.builds(Refused, st.text(max_size=200)),
    st.builds(Bye, u64, st.text(max_size=200)),
)


@given(st.lists(words, min_size=1, max_size=16))
def test_control_words_arrive_as_they_were_said(said):
    assert decode_words(b"".join(map(encode_word, said))) == said


@given(offers)
def test_offers_arrive_as_they_were_said(offer):
    assert decode_offer(encode_offer(offer)) == offer


@given(st.lists(notes, max_size=5), st.integers(1, 50))
def test_notes_arrive_as_they_were_said_however_the_bytes_are_cut(said, size):
    data = b"".join(map(encode_note, said))
    reader = NoteReader()
    heard = []
    for start in range(0, len(data), size):
        heard += reader.feed(data[start : start + size])
    assert heard == said


@given(st.binary(max_size=200))
def test_rubbish_is_refused_by_name(rubbish):
    for decode in (decode_words, decode_offer, NoteReader().feed):
        with contextlib.suppress(TransportError):
            decode(rubbish)


@given(words, st.integers(0, 15), st.integers(1, 255))
def test_a_changed_control_word_says_something_else_or_nothing(word, index, change):
    data = bytearray(encode_word(word))
    data[index] ^= change
    with contextlib.suppress(TransportError):
        assert decode_words(bytes(data)) != [word]


@pytest.mark.parametrize("data", [b"", b"x" * 15, b"\x09" + bytes(15)])
def test_what_is_no_control_word_is_named(data):
    with pytest.raises(TransportError, match="control word"):
        decode_words(data)


def test_an_offer_larger_than_a_chunk_may_be_is_refused():
    with pytest.raises(TransportError, match="at most"):
        decode_offer(encode_offer(Offer(CHUNK_SIZE_BYTES_MAX + 1, 0)))


@pytest.mark.parametrize(
    "change",
    [{"gid": b"short"}, {"qp_num": 0}, {"psn": 1 << 24}, {"mtu": 6}, {"reads": 0}],
)
def test_an_endpoint_that_cannot_be_is_refused(change):
    right = {"gid": bytes(16), "lid": 0, "qp_num": 1, "psn": 0, "mtu": 5, "reads": 1}
    RailEndpoint(**right)
    with pytest.raises(TransportError, match="no queue pair"):
        RailEndpoint(**(right | change))


@pytest.mark.parametrize("number", [0, 33])
def test_an_endpoint_has_some_rails_but_not_too_many(number):
    with pytest.raises(TransportError, match=f"{number} rails"):
        Endpoint((RailEndpoint(bytes(16), 0, 1, 0, 5, 1),) * number)


def test_bytes_outside_of_a_region_have_no_address():
    region = Region(1, 1000, 100, (5,))
    assert region.address_of(90, 10) == 1090
    with pytest.raises(TransportError, match="11 bytes at 90 of region 1"):
        region.address_of(90, 11)
