import pytest
from hypothesis import given
from hypothesis import strategies as st

from jscale.core.errors import TransportError
from jscale.transport.framing import (
    HEAD_SIZE_BYTES,
    Frame,
    FrameKind,
    decode_head,
    encode_head,
)

u32 = st.integers(0, 2**32 - 1)
frames = st.builds(
    Frame,
    kind=st.sampled_from([FrameKind.MESSAGE, FrameKind.CHUNK]),
    plan=u32,
    chunk=u32,
    header_size_bytes=st.integers(0, 65535),
    payload_size_bytes=st.integers(0, 1 << 20),
    crc32c=u32,
)


@given(frames)
def test_a_head_decodes_to_its_frame(frame):
    assert decode_head(encode_head(frame)) == frame


@given(frames, st.integers(0, HEAD_SIZE_BYTES * 8 - 1))
def test_any_flipped_bit_is_noticed(frame, bit):
    head = bytearray(encode_head(frame))
    head[bit // 8] ^= 1 << bit % 8
    with pytest.raises(TransportError):
        decode_head(bytes(head))


def test_the_head_has_the_size_that_the_table_shows():
    assert HEAD_SIZE_BYTES == 32


def test_another_protocol_is_named():
    with pytest.raises(TransportError, match="does not speak this protocol"):
        decode_head(b"GET / HTTP/1.1\r\nHost: jscale.example\r\n"[:HEAD_SIZE_BYTES])


def test_no_frame_is_larger_than_its_kind_allows():
    with pytest.raises(TransportError, match="ASK frame of 1 bytes"):
        Frame(kind=FrameKind.ASK, payload_size_bytes=1)
