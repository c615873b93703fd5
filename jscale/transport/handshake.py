"""How two processes prove to each other that they are of one cluster. Pure.

The one that connects says who it is and a nonce; the other answers with its own, and
a proof that it knows the cluster's token; the first proves the same. The token never
travels, and a proof is good for these two nonces and names only, and for the kind of
connection that the caller wants: the scheme by which they will speak.
"""

import dataclasses
import hashlib
import hmac

from jscale.core.errors import TransportError
from jscale.core.ids import WorkerId
from jscale.transport.base import Hello

NONCE_SIZE_BYTES = 16
_PROOF_SIZE_BYTES = 32
_CALLER, _LISTENER = b"caller", b"listener"
_SEPARATOR = ":"


@dataclasses.dataclass(frozen=True)
class Introduction:
    """One side's name and nonce, and its proof once it knows the other's nonce.

    `scheme` is what the caller wants to speak; the listener repeats it.
    """

    worker: WorkerId
    nonce: bytes
    proof: bytes = b""
    scheme: str = "tcp"

    def encode(self) -> tuple[bytes, bytes]:
        """Header and payload of a HELLO frame."""
        header = f"{self.scheme}{_SEPARATOR}{self.worker}"
        return header.encode(), self.nonce + self.proof

    @staticmethod
    def decode(header: bytes, payload: bytes) -> "Introduction":
        """What `encode` was given.

        Raises:
          TransportError: it was not made by `encode`.
        """
        proof_size_bytes = len(payload) - NONCE_SIZE_BYTES
        if proof_size_bytes not in (0, _PROOF_SIZE_BYTES):
            raise TransportError(f"hello of {len(payload)} bytes, expected 16 or 48")
        try:
            scheme, separator, worker = header.decode().partition(_SEPARATOR)
        except UnicodeDecodeError as error:
            raise TransportError(f"hello from {header!r}, which is no name") from error
        if not separator:
            raise TransportError(f"hello from {header!r}, which names no scheme")
        nonce, proof = payload[:NONCE_SIZE_BYTES], payload[NONCE_SIZE_BYTES:]
        return Introduction(WorkerId(worker), nonce, proof, scheme)


def answer(hello: Hello, nonce: bytes, caller: Introduction) -> Introduction:
    """What the listener says to a caller."""
    proof = _proof(hello.token, _LISTENER, caller, Introduction(hello.worker, nonce))
    return Introduction(hello.worker, nonce, proof, caller.scheme)


def confirm(
    hello: Hello, nonce: bytes, listener: Introduction, scheme: str = "tcp"
) -> Introduction:
    """What the caller, who sent `nonce`, says to the listener's answer.

    Raises:
      TransportError: the listener is not of our cluster.
    """
    caller = Introduction(hello.worker, nonce, scheme=scheme)
    expected = _proof(hello.token, _LISTENER, caller, listener)
    _check(expected, listener)
    if listener.scheme != scheme:
        raise TransportError(
            f"{listener.worker!r} answers by {listener.scheme}, was asked for {scheme}"
        )
    proof = _proof(hello.token, _CALLER, caller, listener)
    return dataclasses.replace(caller, proof=proof)


def accept(hello: Hello, nonce: bytes, caller: Introduction) -> WorkerId:
    """Who the caller is, for the listener who answered with `nonce`.

    Raises:
      TransportError: the caller is not of our cluster.
    """
    listener = Introduction(hello.worker, nonce)
    _check(_proof(hello.token, _CALLER, caller, listener), caller)
    return caller.worker


def _check(expected: bytes, side: Introduction) -> None:
    if not hmac.compare_digest(expected, side.proof):
        raise TransportError(
            f"{side.worker!r} has another cluster token; start it with the token of "
            "this cluster"
        )


def _proof(
    token: bytes, role: bytes, caller: Introduction, listener: Introduction
) -> bytes:
    names = (caller.scheme, caller.worker, listener.worker)
    said = (role, *(name.encode() for name in names))
    text = b"".join(len(part).to_bytes(4, "little") + part for part in said)
    text += caller.nonce + listener.nonce
    return hmac.new(token, text, hashlib.sha256).digest()
