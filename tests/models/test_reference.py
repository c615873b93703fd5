"""Llama against what transformers computed (see tests/parity/make_fixtures.py)."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from jscale.core.partition import Partition
from jscale.models.registry import config_from_hf
from jscale.models.testing import TiledModel, dense_logits

FIXTURES = Path(__file__).parent / "fixtures"
CASES = ("llama2", "grouped_queries", "llama3_scaling", "tied", "wide_heads")
PAGES = list(range(1, 20))


@functools.cache
def load(case):
    """Config, tensors and the arrays of a case."""
    arrays = dict(np.load(FIXTURES / f"{case}.npz"))
    config = config_from_hf(json.loads(str(arrays.pop("hf_config"))))[1]
    tensors = {
        name: arrays.pop(name).astype(np.float32)
        for name in list(arrays)
        if name.endswith(".weight")
    }
    return config, tensors, arrays


@pytest.mark.parametrize("case", CASES)
def test_logits_and_greedy_tokens_equal_those_of_transformers(case):
    config, tensors, arrays = load(case)
    prompt = arrays["prompt"].tolist()
    model = TiledModel(config, Partition.of_layers((1, 2)), tensors)
    logits = model.run(prompt, range(len(prompt)), [PAGES] * len(prompt))
    np.testing.assert_allclose(logits, arrays["logits"], rtol=0, atol=1e-4)

    tokens = [int(logits[-1].argmax())]
    while len(tokens) < len(arrays["greedy"]):
        position = len(prompt) + len(tokens) - 1
        tokens.append(int(model.run(tokens[-1:], [position], [PAGES])[0].argmax()))
    assert tokens == arrays["greedy"].tolist()


@pytest.mark.parametrize("case", CASES)
def test_the_naive_reference_equals_transformers_too(case):
    config, tensors, arrays = load(case)
    logits = dense_logits(config, tensors, arrays["prompt"].tolist())
    np.testing.assert_allclose(logits, arrays["logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_bf16_weights_lose_only_precision(compute_dtype):
    config, tensors, arrays = load("llama3_scaling")
    prompt = arrays["prompt"].tolist()
    model = TiledModel(
        config,
        Partition.of_layers((1, 2)),
        tensors,
        dtype="bfloat16",
        compute_dtype=compute_dtype,
    )
    logits = model.run(prompt, range(len(prompt)), [PAGES] * len(prompt))
    spread = arrays["logits"].std()
    error = np.abs(logits - arrays["logits"]).max()
    assert error < 0.15 * spread, (error, spread)
