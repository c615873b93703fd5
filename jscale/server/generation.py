"""What a client gets of one request."""

import contextlib
import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from jscale.proto.v1 import jscale_pb2 as pb

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

    Attributes:
      finish_reason: `stop`, `length` or `cancelled`; None before the end.
      num_prompt_tokens: known with the first token.

    Raises, from the iteration:
      RequestError: the request can never be served as it is.
      OverloadedError: too many wait: try again later.
      UnavailableError: nothing could serve it.
    """

    def __init__(
        self, call: Any, told: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> None:
        self.finish_reason: str | None = None
        self.num_prompt_tokens: int | None = None
        self._call = call
        self._told = told
        self._ready: deque[Token] = deque()

    def __next__(self) -> Token:
        while not self._ready:
            if self.finish_reason is not None:
                raise StopIteration
            self._read()
        return self._ready.popleft()

    def cancel(self) -> None:
        """Gives the rest up; the gateway frees what the request holds. Any thread."""
        self._call.cancel()
        self.finish_reason = self.finish_reason or "cancelled"

    def _read(self) -> None:
        with self._told():
            response = next(self._call)
        if response.prompt_tokens:
            self.num_prompt_tokens = response.prompt_tokens
        self._ready.extend(
            Token(token.id, token.text, token.logprob, token.index)
            for token in response.tokens
        )
        self.finish_reason = _REASONS.get(response.finish_reason)
