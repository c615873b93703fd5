"""Text to token ids, and token ids to text as they come."""

import pathlib
from collections.abc import Sequence

import tokenizers

from jscale.core.errors import CheckpointError

REPLACEMENT = "\ufffd"
"""What a decoder shows for bytes that are no character, or not yet."""

PENDING_TOKENS_MAX = 32
"""Tokens held back at most while they end within a character. A character has at most
4 bytes; more are held where tokens join the end of one to the start of the next."""


class Tokenizer:
    """A `tokenizer.json`. Immutable; any thread."""

    def __init__(self, path: pathlib.Path) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # no narrower one
            raise CheckpointError(
                f"tokenizer {path}: {error}; expected a Hugging Face tokenizer.json"
            ) from error
        anchor = self._tokenizer.encode("a", add_special_tokens=False).ids
        self._anchor = list(anchor) if self._decode(anchor) else []

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of a prompt, with whatever the tokenizer puts before a text."""
        return tuple(self._tokenizer.encode(text).ids)

    def decode(self, token_ids: Sequence[int], *, continues: bool = False) -> str:
        """The text of the tokens, special ones left out.

        Args:
          token_ids: any ids of the vocabulary.
          continues: there is text before it: decoders drop the space before the first
            word of a text, and here that space counts.
        """
        if not continues:
            return self._decode(token_ids)
        before = self._decode(self._anchor)
        return self._decode([*self._anchor, *token_ids])[len(before) :]

    def _decode(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))


class Detokenizer:
    """Text of one sequence, token by token; owned by whoever streams it.

    A token's text is held back while it ends within a character, so that a character
    of several tokens comes whole with the last of them.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._has_text = bool(tokenizer.decode(prompt_ids))
        self._pending: list[int] = []

    def add(self, token: int, *, is_last: bool) -> str:
        """The text that this token completes; all of it when it is the last."""
        self._pending.append(token)
        text = self._tokenizer.decode(self._pending, continues=self._has_text)
        ends_within = text.endswith(REPLACEMENT) and not is_last
        if ends_within and len(self._pending) < PENDING_TOKENS_MAX:
            return ""
        self._pending.clear()
        self._has_text = self._has_text or bool(text)
        return text
