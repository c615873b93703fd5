"""What a gateway must know of the model to take requests for it."""

import dataclasses

from jscale.checkpoint.cache import resolve
from jscale.cluster.config import CONTEXT_MAX_DEFAULT
from jscale.server.tokenizer import Tokenizer
from jscale.store.manifest import Manifest


@dataclasses.dataclass(frozen=True)
class ModelFacts:
    """Bounds of a request, and its text.

    Attributes:
      max_context: tokens of a sequence at most, prompt included.
      tokenizer: None when the model came without: then it takes token ids only.
    """

    model_name: str
    vocab_size: int
    max_context: int
    eos_token_ids: tuple[int, ...]
    tokenizer: Tokenizer | None


def load_model_facts(
    model_path: str, *, cache_dir: str, max_context: int | None
) -> ModelFacts:
    """The facts of a block store, or of a checkpoint, which is converted if need be.

    Raises:
      CheckpointError: the model or its tokenizer cannot be read.
    """
    store = resolve(model_path, cache_dir)
    manifest = Manifest.load(store)
    config = manifest.config
    named = manifest.tokenizer_file
    return ModelFacts(
        model_name=manifest.model_name,
        vocab_size=int(config["vocab_size"]),
        max_context=max_context or min(int(config["max_context"]), CONTEXT_MAX_DEFAULT),
        eos_token_ids=tuple(config["eos_token_ids"]),
        tokenizer=None if named is None else Tokenizer(store / named),
    )
