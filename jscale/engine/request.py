"""What a client asks for: frozen, checked once, and small enough to travel."""

import msgspec

from jscale.core.errors import RequestError
from jscale.core.ids import SequenceId

TEMPERATURE_MAX = 100.0
TOP_K_MAX = 2**31 - 1
SEED_MAX = 2**32 - 1
MAX_TOKENS_MAX = 2**24
NUM_STOP_TOKENS_MAX = 64


class SamplingParams(msgspec.Struct, frozen=True):
    """How tokens are chosen, and when to stop.

    `temperature` 0 is greedy. `top_k` 0 and `top_p` 1 leave every token in. The same
    `seed` and prompt give the same tokens, on any worker and in any batch. Generation
    ends after `max_tokens`, at the end of the context, after one of `stop_token_ids`
    or, unless `ignore_eos`, after one of the model's own; that token is given too.

    Raises:
      RequestError: a value is out of its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    max_tokens: int = 128
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        _check_range("temperature", self.temperature, 0.0, TEMPERATURE_MAX)
        _check_range("top_k", self.top_k, 0, TOP_K_MAX)
        if not 0.0 < self.top_p <= 1.0:
            raise RequestError(
                f"top_p={self.top_p}: it must be over 0 and at most 1; 1 leaves every "
                "token in"
            )
        _check_range("seed", self.seed, 0, SEED_MAX)
        _check_range("max_tokens", self.max_tokens, 1, MAX_TOKENS_MAX)
        _check_range(
            "number of stop_token_ids", len(self.stop_token_ids), 0, NUM_STOP_TOKENS_MAX
        )
        for token in self.stop_token_ids:
            _check_range("stop token id", token, 0, TOP_K_MAX)


class Request(msgspec.Struct, frozen=True):
    """A prompt and how to go on from it."""

    id: SequenceId
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams = msgspec.field(default_factory=SamplingParams)

    def check(self, *, vocab_size: int, max_context: int) -> None:
        """Checks the request against a model. O(prompt).

        Raises:
          RequestError: the prompt is empty, leaves no room in the context, or has a
            token id that the vocabulary lacks.
        """
        num_tokens = len(self.prompt_ids)
        if num_tokens == 0:
            raise RequestError("the prompt is empty: give at least one token")
        if num_tokens >= max_context:
            raise RequestError(
                f"the prompt has {num_tokens} tokens and the context holds "
                f"{max_context}: shorten it to at most {max_context - 1}"
            )
        for index, token in enumerate(self.prompt_ids):
            if not 0 <= token < vocab_size:
                raise RequestError(
                    f"unknown token id {token} at position {index} of the prompt: the "
                    f"vocabulary has ids 0 to {vocab_size - 1}"
                )


def _check_range(name: str, value: float, low: float, high: float) -> None:
    """Holds for no NaN either: every comparison with it is false."""
    if not low <= value <= high:
        raise RequestError(f"{name}={value}: it must be from {low} to {high}")
