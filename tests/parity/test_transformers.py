"""Llama here against LlamaForCausalLM there, on random small configs, live."""

import dataclasses

import numpy as np
import pytest

from jscale.core.partition import Partition
from jscale.models.registry import config_from_hf
from jscale.models.testing import TiledModel, dense_logits, random_tensors

pytestmark = [pytest.mark.parity]

PROMPT_TOKENS = 40
GREEDY_TOKENS = 24
PAGES = list(range(1, 20))


def random_hf_config(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    kv_heads = int(rng.integers(1, 4))
    heads = kv_heads * int(rng.integers(1, 4))
    head_dim = int(rng.choice([8, 16, 32]))
    hidden = heads * int(rng.choice([head_dim, 4, 10]))
    hf_config = {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": int(rng.integers(50, 200)),
        "hidden_size": hidden,
        "intermediate_size": int(rng.integers(4, 20)) * 8,
        "num_hidden_layers": int(rng.integers(1, 6)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": 128,
        "rms_norm_eps": float(rng.choice([1e-5, 1e-6])),
        "rope_theta": float(rng.choice([1e4, 5e5])),
        "tie_word_embeddings": bool(rng.random() < 0.5),
    }
    if rng.random() < 0.5:
        hf_config["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": float(rng.choice([2.0, 8.0, 32.0])),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": int(rng.choice([16, 64])),
        }
    return hf_config


@pytest.mark.parametrize("seed", range(12))
def test_logits_and_greedy_tokens_equal_those_of_transformers(oracle, seed):
    hf_config = random_hf_config(seed)
    config = config_from_hf(hf_config)[1]
    tensors = random_tensors(config, seed)
    rng = np.random.default_rng(seed)
    prompt = rng.integers(0, config.vocab_size, PROMPT_TOKENS).tolist()
    reference = oracle.Reference(hf_config, tensors)
    written = config_from_hf(reference.hf_config)[1]
    assert dataclasses.replace(written, bos_token_id=None, eos_token_ids=()) == config

    model = TiledModel(config, Partition.of_layers((config.num_layers,)), tensors)
    logits = model.run(prompt, range(PROMPT_TOKENS), [PAGES] * PROMPT_TOKENS)
    expected = reference.logits(prompt)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(
        dense_logits(config, tensors, prompt), expected, rtol=0, atol=1e-4
    )

    tokens = [int(logits[-1].argmax())]
    while len(tokens) < GREEDY_TOKENS:
        position = PROMPT_TOKENS + len(tokens) - 1
        tokens.append(int(model.run(tokens[-1:], [position], [PAGES])[0].argmax()))
    assert tokens == reference.greedy(prompt, GREEDY_TOKENS)
