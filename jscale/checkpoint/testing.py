"""Small checkpoints for tests, as Hugging Face writes them."""

import json
import pathlib
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from jscale.checkpoint.hugging_face import INDEX_FILE, SINGLE_FILE
from jscale.models.llama_config import LlamaConfig
from jscale.models.testing import HfTensors

BUNDLED_DIRECTORY = pathlib.Path(__file__).parents[1] / "bundled" / "stories260K"
"""The model that comes with jscale."""


def write_hugging_face(
    directory: pathlib.Path,
    config: LlamaConfig,
    tensors: HfTensors,
    *,
    num_shards: int = 1,
    dtype: Any = np.float32,
    has_tokenizer: bool = True,
) -> None:
    """Writes a directory as `save_pretrained` does, with the bundled tokenizer."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(hf_config(config)))
    if has_tokenizer:
        tokenizer = BUNDLED_DIRECTORY / "tokenizer.json"
        (directory / tokenizer.name).write_bytes(tokenizer.read_bytes())
    tensors = {name: values.astype(dtype) for name, values in tensors.items()}
    if num_shards == 1:
        save_file(tensors, directory / SINGLE_FILE)
        return
    places: dict[str, str] = {}
    for index in range(num_shards):
        file = f"model-{index + 1:05d}-of-{num_shards:05d}.safetensors"
        shard = {name: tensors[name] for name in sorted(tensors)[index::num_shards]}
        save_file(shard, directory / file)
        places |= dict.fromkeys(shard, file)
    weight_map = {"metadata": {}, "weight_map": places}
    (directory / INDEX_FILE).write_text(json.dumps(weight_map))


def hf_config(config: LlamaConfig) -> dict[str, Any]:
    """The config.json of a model without RoPE scaling."""
    assert config.rope_scaling is None
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_context,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": list(config.eos_token_ids) or None,
    }
