"""Frames and handshakes that were damaged or forged: refused, and nothing else."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jscale.core.errors import TransportError
from jscale.core.ids import WorkerId
from jscale.transport import framing, handshake
from jscale.transport.base import Hello
from jscale.transport.checksum import crc32c
from jscale.transport.framing import (
    HEAD_SIZE_BYTES,
    Frame,
    FrameKind,
    decode_head,
    encode_head,
)
from jscale.transport.handshake import Introduction
from tests.transport.mutation import mutations

NUM_MUTATIONS = 3000
FRAMES = (
    Frame(FrameKind.HELLO, header_size_bytes=7, payload_size_bytes=48, crc32c=5),
    Frame(FrameKind.MESSAGE, 0, 0, 65535, 1 << 20, 0xFFFFFFFF),
    Frame(FrameKind.CHUNK, (1 << 64) - 1, (1 << 32) - 1, 0, 4 << 20, 1),
    Frame(FrameKind.ANNOUNCE, plan=3, payload_size_bytes=32),
    Frame(FrameKind.ASK, plan=3, chunk=9),
)
CALLER = Hello(WorkerId("caller"), b"secret")
LISTENER = Hello(WorkerId("listener"), b"secret")
NONCE_A, NONCE_B = b"a" * 16, b"b" * 16


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.kind.name)
def test_no_changed_head_is_taken_for_another_frame(frame):
    for changed in mutations(encode_head(frame), NUM_MUTATIONS):
        try:
            decoded = decode_head(changed)
        except TransportError:
            continue
        assert decoded == frame, changed.hex()


@given(
    st.integers(0, 255),
    st.integers(0, (1 << 16) - 1),
    st.integers(0, (1 << 64) - 1),
    st.tuples(*[st.integers(0, (1 << 32) - 1)] * 3),
)
def test_a_forged_head_is_refused_or_claims_no_more_than_its_kind_may(
    kind, header_size_bytes, plan, numbers
):
    head = struct.pack("<IBxHQIII", 0x3163736A, kind, header_size_bytes, plan, *numbers)
    try:
        frame = decode_head(head + crc32c(head).to_bytes(4, "little"))
    except TransportError:
        return
    assert frame.kind == kind
    assert frame.payload_size_bytes <= framing.MESSAGE_SIZE_BYTES_MAX
    if frame.kind is FrameKind.HELLO:  # All that a stranger can make us set aside.
        assert frame.size_bytes <= HEAD_SIZE_BYTES + (64 << 10) + (4 << 10)


@given(st.binary(max_size=80))
def test_rubbish_is_no_head(data):
    with pytest.raises(TransportError):
        decode_head(data)


def test_no_changed_proof_is_accepted():
    answer = handshake.answer(LISTENER, NONCE_B, Introduction(CALLER.worker, NONCE_A))
    said = handshake.confirm(CALLER, NONCE_A, answer)
    for changed in changed_introductions(said):
        with pytest.raises(TransportError):
            handshake.accept(LISTENER, NONCE_B, changed)


def test_no_changed_answer_is_confirmed():
    answer = handshake.answer(LISTENER, NONCE_B, Introduction(CALLER.worker, NONCE_A))
    for changed in changed_introductions(answer):
        with pytest.raises(TransportError):
            handshake.confirm(CALLER, NONCE_A, changed)


def changed_introductions(introduction):
    """Those that can be decoded from what is nearly this one's bytes."""
    header, payload = introduction.encode()
    changed = [(other, payload) for other in mutations(header, NUM_MUTATIONS)]
    changed += [(header, other) for other in mutations(payload, NUM_MUTATIONS)]
    num_decoded = 0
    for pair in changed:
        try:
            decoded = Introduction.decode(*pair)
        except TransportError:
            continue
        num_decoded += 1
        yield decoded
    assert num_decoded > NUM_MUTATIONS / 4  # Else this tests nothing.


def test_a_proof_names_both_sides_whatever_their_names_are():
    """Bytes of one name must not pass for bytes of the other."""
    between = Introduction(WorkerId("listener\0else"), NONCE_B)
    answer = handshake.answer(
        Hello(between.worker, b"secret"), NONCE_B, Introduction(CALLER.worker, NONCE_A)
    )
    said = handshake.confirm(CALLER, NONCE_A, answer)
    forged = Introduction(WorkerId("caller\0listener"), said.nonce, said.proof)
    with pytest.raises(TransportError):
        handshake.accept(Hello(WorkerId("else"), b"secret"), NONCE_B, forged)
