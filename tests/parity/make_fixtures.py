"""Writes tests/models/fixtures: what transformers computes for a few tiny Llamas.

    python tests/parity/make_fixtures.py

needs torch and transformers (see `make test-parity`). Weights are kept as float16 and
are exactly that; logits and all computations are float32.
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from oracle import Reference

from jscale.models.registry import config_from_hf
from jscale.models.testing import random_tensors

TARGET = Path(__file__).parents[1] / "models" / "fixtures"
PROMPT_TOKENS = 40
GREEDY_TOKENS = 16

BASE = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-5,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
CASES = {
    "llama2": BASE,
    "grouped_queries": {
        **BASE,
        "hidden_size": 48,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
    },
    "llama3_scaling": {
        **BASE,
        "num_key_value_heads": 2,
        "rope_theta": 500000.0,
        "rope_scaling": LLAMA3_ROPE,
        "eos_token_id": [2, 3],
    },
    "tied": {**BASE, "num_key_value_heads": 1, "tie_word_embeddings": True},
    "wide_heads": {**BASE, "num_key_value_heads": 2, "head_dim": 16},
}


def main() -> None:
    """Writes every case."""
    TARGET.mkdir(parents=True, exist_ok=True)
    for seed, (name, hf_config) in enumerate(CASES.items()):
        _, config = config_from_hf(hf_config)
        tensors = random_tensors(config, seed)
        halves = {key: value.astype(np.float16) for key, value in tensors.items()}
        exact = {key: value.astype(np.float32) for key, value in halves.items()}
        reference = Reference(hf_config, exact)
        prompt = np.random.default_rng(seed).integers(0, 61, PROMPT_TOKENS).tolist()
        path = TARGET / f"{name}.npz"
        np.savez_compressed(
            path,
            hf_config=json.dumps(reference.hf_config),
            made_by=f"{torch.__version__=} {transformers.__version__=}",
            prompt=np.array(prompt, np.int32),
            logits=reference.logits(prompt),
            greedy=np.array(reference.greedy(prompt, GREEDY_TOKENS), np.int32),
            **halves,
        )
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
