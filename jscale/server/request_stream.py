"""What a gateway has for one client."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from jscale.core.errors import JscaleError
from jscale.core.ids import SequenceId
from jscale.engine.request import Request
from jscale.proto.v1 import jscale_pb2 as pb
from jscale.server.decisions import Deliver, End, Fail
from jscale.server.tokenizer import Detokenizer, Tokenizer

FINISH_REASONS = {
    "stop": pb.FINISH_REASON_STOP,
    "length": pb.FINISH_REASON_LENGTH,
    "cancelled": pb.FINISH_REASON_CANCELLED,
}


class RequestStream:
    """Tokens of one request on their way to its client; owned by the event loop.

    Bounded by the `max_tokens` of the request.
    """

    def __init__(
        self,
        sequence: SequenceId,
        request: Request,
        *,
        tokenizer: Tokenizer | None,
        eos_token_ids: tuple[int, ...],
        arrived_ns: int,
        generated: Sequence[int] = (),
    ) -> None:
        self.sequence = sequence
        self.request = request
        self.arrived_ns = arrived_ns
        self._queue: asyncio.Queue[Deliver | End | Fail] = asyncio.Queue()
        self._detokenizer = (
            None if tokenizer is None else Detokenizer(tokenizer, request.prompt_ids)
        )
        sampling = request.sampling
        self._last_tokens = {
            *sampling.stop_token_ids,
            *(() if sampling.ignore_eos else eos_token_ids),
        }
        if self._detokenizer is not None:
            for token in generated:  # Their text is told; a character may be half told.
                self._detokenizer.add(token, is_last=False)

    def put(self, decision: Deliver | End | Fail) -> None:
        """The next of what the router decided for this request."""
        self._queue.put_nowait(decision)

    async def responses(self) -> AsyncIterator[pb.GenerateResponse]:
        """What to send to the client; tokens that came together go together.

        Raises:
          JscaleError: the request failed.
        """
        prompt_tokens = len(self.request.prompt_ids)
        while True:
            response = pb.GenerateResponse(
                request_id=self.request.id, prompt_tokens=prompt_tokens
            )
            prompt_tokens = 0
            failure: JscaleError | None = None
            for decision in await self._taken():
                match decision:
                    case Deliver():
                        response.tokens.append(self._token(decision))
                    case End(reason=reason):
                        response.finish_reason = FINISH_REASONS[reason]
                    case Fail(error=error):
                        failure = error
            if response.tokens or response.finish_reason:
                yield response
            if failure is not None:
                raise failure
            if response.finish_reason:
                return

    async def _taken(self) -> list[Deliver | End | Fail]:
        """All that is there, at least one."""
        taken = [await self._queue.get()]
        while not self._queue.empty():
            taken.append(self._queue.get_nowait())
        return taken

    def _token(self, delivered: Deliver) -> pb.Token:
        is_last = (
            delivered.index + 1 == self.request.sampling.max_tokens
            or delivered.token in self._last_tokens
        )
        text = ""
        if self._detokenizer is not None:
            text = self._detokenizer.add(delivered.token, is_last=is_last)
        return pb.Token(
            id=delivered.token,
            text=text,
            logprob=delivered.logprob,
            index=delivered.index,
        )
