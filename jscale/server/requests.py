"""From the request of a client to one that the engine runs: every check is here."""

import msgspec

from jscale.core.errors import RequestError
from jscale.core.ids import SequenceId
from jscale.engine.request import Request, SamplingParams
from jscale.proto.v1 import jscale_pb2 as pb
from jscale.server.model_facts import ModelFacts

MAX_TOKENS_DEFAULT = 128

REQUEST_ID_LENGTH_MAX = 256
"""It goes with every response."""

PROMPT_CHARACTERS_PER_TOKEN_MAX = 64
"""Longer texts are refused before they are tokenised: that takes time."""


def read_request(asked: pb.GenerateRequest, facts: ModelFacts, name: str) -> Request:
    """The request as the engine takes it, under that name.

    Its `max_tokens` is never more than the context has room for.

    Raises:
      RequestError: it can never be served; the message says what to change.
    """
    if len(name) > REQUEST_ID_LENGTH_MAX:
        raise RequestError(
            f"request_id of {len(name)} characters: give at most "
            f"{REQUEST_ID_LENGTH_MAX}, or none"
        )
    prompt_ids = _prompt_ids(asked, facts)
    sampling = asked.sampling
    for token in sampling.stop_token_ids:
        if not 0 <= token < facts.vocab_size:
            raise RequestError(
                f"unknown token id {token} in stop_token_ids: the vocabulary has ids "
                f"0 to {facts.vocab_size - 1}"
            )
    # Checked as it was asked for, before it is cut to the room that there is.
    params = SamplingParams(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p if sampling.HasField("top_p") else 1.0,
        seed=sampling.seed,
        max_tokens=sampling.max_tokens
        if sampling.HasField("max_tokens")
        else MAX_TOKENS_DEFAULT,
        stop_token_ids=tuple(sampling.stop_token_ids),
        ignore_eos=sampling.ignore_eos,
    )
    Request(SequenceId(name), prompt_ids, params).check(
        vocab_size=facts.vocab_size, max_context=facts.max_context
    )
    fitting = msgspec.structs.replace(
        params,
        max_tokens=min(params.max_tokens, facts.max_context - len(prompt_ids)),
        top_k=min(params.top_k, facts.vocab_size),
    )
    return Request(SequenceId(name), prompt_ids, fitting)


def read_generated(
    asked: pb.GenerateRequest, facts: ModelFacts, request: Request
) -> tuple[int, ...]:
    """The tokens that the client has already, from another gateway.

    Raises:
      RequestError: they cannot be of this request.
    """
    generated = tuple(asked.generated_ids)
    if len(generated) > request.sampling.max_tokens:
        raise RequestError(
            f"generated_ids has {len(generated)} tokens and the request ends after "
            f"{request.sampling.max_tokens}: give those of this very request"
        )
    for index, token in enumerate(generated):
        if not 0 <= token < facts.vocab_size:
            raise RequestError(
                f"unknown token id {token} at index {index} of generated_ids: the "
                f"vocabulary has ids 0 to {facts.vocab_size - 1}"
            )
    return generated


def _prompt_ids(asked: pb.GenerateRequest, facts: ModelFacts) -> tuple[int, ...]:
    if asked.text and asked.token_ids:
        raise RequestError(
            f"both text ({len(asked.text)} characters) and token_ids "
            f"({len(asked.token_ids)}) are given: give one of them"
        )
    if not asked.text:
        return tuple(asked.token_ids)
    if facts.tokenizer is None:
        raise RequestError(
            f"{facts.model_name} has no tokenizer, so it takes no text: give token_ids"
        )
    characters_max = facts.max_context * PROMPT_CHARACTERS_PER_TOKEN_MAX
    if len(asked.text) > characters_max:
        raise RequestError(
            f"the prompt has {len(asked.text)} characters and the context holds "
            f"{facts.max_context} tokens: shorten it to at most {characters_max}"
        )
    return facts.tokenizer.encode(asked.text)
