"""What a client gets of one request."""

import contextlib
import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from jscale.core.errors import JscaleError
from jscale.proto.v1 import jscale_pb2 as pb
from jscale.server.endpoints import Endpoint, Resumption

_REASONS = {
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_LENGTH: "length",
    pb.FINISH_REASON_CANCELLED: "cancelled",
}


@dataclasses.dataclass(frozen=True)
class Token:
    """One generated token.

    Attributes:
      text: what this token completes: empty while a character needs more tokens.
      logprob: natural logarithm of the probability that the model gave it.
      index: counts the generated tokens from 0.
    """

    id: int
    text: str
    logprob: float
    index: int


class Generation(Iterator[Token]):
    """The tokens of a request as they come; owned by the thread that iterates.

    When the gateway is lost it goes on at another, or at the same when it is back,
    after the tokens that came: each comes once.

    Attributes:
      finish_reason: `stop`, `length` or `cancelled`; None before the end.
      num_prompt_tokens: known with the first token.
      num_resumed: how often it went on at another gateway.

    Raises, from the iteration:
      RequestError: the request can never be served as it is.
      OverloadedError: too many wait: try again later.
      UnavailableError: nothing could serve it.
    """

    def __init__(
        self,
        open_stream: Callable[[Endpoint, Sequence[int]], Any],
        resumption: Resumption,
        told: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        """Sends the request.

        Args:
          open_stream: sends it to a gateway, to go on after these tokens.
          resumption: when to send it again.
          told: turns gRPC statuses into errors.
        """
        self.finish_reason: str | None = None
        self.num_prompt_tokens: int | None = None
        self.num_resumed = 0
        self._open_stream = open_stream
        self._resumption = resumption
        self._told = told
        self._ids: list[int] = []
        self._ready: deque[Token] = deque()
        self._call = open_stream(resumption.endpoint(), ())

    def __next__(self) -> Token:
        while not self._ready:
            if self.finish_reason is not None:
                raise StopIteration
            self._read()
        return self._ready.popleft()

    def cancel(self) -> None:
        """Gives the rest up; the gateway frees what the request holds. Any thread."""
        self._resumption.give_up()
        self._call.cancel()
        self.finish_reason = self.finish_reason or "cancelled"

    def _read(self) -> None:
        try:
            response = next(self._call)
        except grpc.RpcError as error:
            with self._told():
                self._resumption.broke(error)
            self._go_on()
            return
        self._resumption.answered()
        if response.prompt_tokens:
            self.num_prompt_tokens = response.prompt_tokens
        for token in response.tokens:
            self._add(Token(token.id, token.text, token.logprob, token.index))
        self.finish_reason = _REASONS.get(response.finish_reason)

    def _go_on(self) -> None:
        """Opens the stream again, after the tokens that came."""
        if not self._resumption.is_given_up:
            self.num_resumed += 1
            with self._told():
                endpoint = self._resumption.endpoint()
                self._call = self._open_stream(endpoint, self._ids)
        if self._resumption.is_given_up:  # Meanwhile, it may be.
            self._call.cancel()
            self.finish_reason = "cancelled"

    def _add(self, token: Token) -> None:
        if token.index > len(self._ids):
            raise JscaleError(
                f"the gateway left out token {len(self._ids)}: it sent {token.index}"
            )
        if token.index == len(self._ids):
            self._ids.append(token.id)
            self._ready.append(token)
