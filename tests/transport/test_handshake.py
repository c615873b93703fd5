import dataclasses

import pytest

from jscale.core.errors import TransportError
from jscale.core.ids import WorkerId
from jscale.transport import handshake
from jscale.transport.base import Hello
from jscale.transport.handshake import Introduction

CALLER = Hello(WorkerId("a"), b"secret")
LISTENER = Hello(WorkerId("b"), b"secret")
NONCE_A, NONCE_B = b"a" * 16, b"b" * 16


def test_both_sides_accept_each_other():
    answer = handshake.answer(LISTENER, NONCE_B, Introduction(CALLER.worker, NONCE_A))
    confirmation = handshake.confirm(CALLER, NONCE_A, answer)
    assert handshake.accept(LISTENER, NONCE_B, confirmation) == "a"


def test_a_listener_without_the_token_is_refused():
    stranger = dataclasses.replace(LISTENER, token=b"guess")
    answer = handshake.answer(stranger, NONCE_B, Introduction(CALLER.worker, NONCE_A))
    with pytest.raises(TransportError, match="'b' has another cluster token"):
        handshake.confirm(CALLER, NONCE_A, answer)


def test_a_caller_without_the_token_is_refused():
    with pytest.raises(TransportError, match="'a' has another cluster token"):
        handshake.accept(LISTENER, NONCE_B, Introduction(CALLER.worker, NONCE_A, b""))


@pytest.mark.parametrize("change", ["worker", "nonce", "role", "scheme"])
def test_a_proof_is_good_for_one_meeting_only(change):
    answer = handshake.answer(LISTENER, NONCE_B, Introduction(CALLER.worker, NONCE_A))
    confirmation = handshake.confirm(CALLER, NONCE_A, answer)
    nonce = NONCE_B
    if change == "worker":
        confirmation = dataclasses.replace(confirmation, worker=WorkerId("c"))
    elif change == "nonce":
        nonce = b"c" * 16
    elif change == "scheme":
        confirmation = dataclasses.replace(confirmation, scheme="rdma")
    else:
        confirmation = dataclasses.replace(confirmation, proof=answer.proof)
    with pytest.raises(TransportError):
        handshake.accept(LISTENER, nonce, confirmation)


def test_an_introduction_travels():
    introduction = Introduction(WorkerId("wör:ker"), NONCE_A, b"p" * 32, "rdma")
    assert Introduction.decode(*introduction.encode()) == introduction


def test_a_caller_notices_that_its_wish_was_changed_on_the_way():
    caller = Introduction(CALLER.worker, NONCE_A, scheme="rdma")
    changed = dataclasses.replace(caller, scheme="tcp")
    answer = handshake.answer(LISTENER, NONCE_B, changed)
    with pytest.raises(TransportError, match="'b' has another cluster token"):
        handshake.confirm(CALLER, NONCE_A, answer, "rdma")


@pytest.mark.parametrize(
    ("header", "payload"),
    [(b"tcp:a", b"x" * 20), (b"tcp:\xff", NONCE_A), (b"a", NONCE_A)],
)
def test_rubbish_is_refused(header, payload):
    with pytest.raises(TransportError, match="hello"):
        Introduction.decode(header, payload)
