"""A row's logits are the same bits whatever surrounds it and however it is computed."""

import dataclasses

import numpy as np
import pytest

from jscale.core.partition import Partition
from jscale.models.block import TILE_ROWS
from jscale.models.testing import TINY_CONFIG, TiledModel, random_tensors

WIDE_CONFIG = dataclasses.replace(
    TINY_CONFIG, vocab_size=515, hidden_size=192, intermediate_size=520, head_dim=32
)
"""Wide enough that XLA hands products to its library and splits work over threads."""

CONFIGS = {"tiny": TINY_CONFIG, "wide": WIDE_CONFIG}
CUTS = ((4,), (1, 3), (1, 1, 2))
DTYPES = (("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "bfloat16"))
LENGTH = 37
PAGES = list(range(1, 11))

sizes = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def new_model(config, cut=(4,), dtypes=DTYPES[0], **settings):
    return TiledModel(
        config,
        Partition.of_layers(cut),
        random_tensors(config),
        dtype=dtypes[0],
        compute_dtype=dtypes[1],
        **settings,
    )


def prompt_of(config, seed=0):
    return np.random.default_rng(seed).integers(0, config.vocab_size, LENGTH).tolist()


def prefill(model, token_ids, pages=PAGES, first=0):
    positions = range(first, first + len(token_ids))
    return model.run(token_ids, positions, [pages] * len(token_ids))


def decode(model, token_ids, pages=PAGES, first=0):
    rows = [
        model.run([token_id], [first + index], [pages])
        for index, token_id in enumerate(token_ids)
    ]
    return np.concatenate(rows)


@sizes
@pytest.mark.parametrize("dtypes", DTYPES, ids="-".join)
def test_every_cut_walks_to_the_same_logits(config, dtypes):
    token_ids = prompt_of(config)
    whole = prefill(new_model(config, dtypes=dtypes), token_ids)
    for cut in CUTS[1:]:
        walked = prefill(new_model(config, cut, dtypes), token_ids)
        np.testing.assert_array_equal(walked, whole, err_msg=str(cut))


@sizes
@pytest.mark.parametrize("dtypes", DTYPES, ids="-".join)
def test_prefill_equals_decode_token_by_token(config, dtypes):
    token_ids = prompt_of(config)
    at_once = prefill(new_model(config, dtypes=dtypes), token_ids)
    one_by_one = decode(new_model(config, (1, 3), dtypes), token_ids)
    np.testing.assert_array_equal(one_by_one, at_once)


@sizes
@pytest.mark.parametrize("chunk", [1, 5, 16, 20])
def test_prefill_in_chunks_equals_prefill_at_once(config, chunk):
    token_ids = prompt_of(config)
    model = new_model(config)
    parts = [
        prefill(model, token_ids[first : first + chunk], first=first)
        for first in range(0, LENGTH, chunk)
    ]
    at_once = prefill(new_model(config), token_ids)
    np.testing.assert_array_equal(np.concatenate(parts), at_once)


@sizes
def test_a_row_is_the_same_wherever_it_stands_and_whoever_is_beside_it(config):
    token_ids = prompt_of(config)
    model = new_model(config)
    prefill(model, token_ids[:-1])
    alone = model.run(token_ids[-1:], [LENGTH - 1], [PAGES])[0]
    others = list(range(20, 39))
    for place in (*range(TILE_ROWS), TILE_ROWS + 7):
        rows = (
            prompt_of(config, seed=place)[: place + 9],
            list(range(place + 9)),
            [others] * (place + 9),
        )
        for column, value in zip(rows, (token_ids[-1], LENGTH - 1, PAGES), strict=True):
            column.insert(place, value)
        crowded = model.run(*rows)[place]
        np.testing.assert_array_equal(crowded, alone, err_msg=f"row {place}")


@sizes
def test_the_pages_and_the_capacity_of_a_batch_change_nothing(config):
    token_ids = prompt_of(config)
    expected = prefill(new_model(config), token_ids)
    scattered = np.random.default_rng(0).permutation(np.arange(1, 40)).tolist()[:10]
    np.testing.assert_array_equal(
        prefill(new_model(config), token_ids, scattered), expected
    )
    larger = new_model(config, row_capacity=128, num_pages=64)
    np.testing.assert_array_equal(prefill(larger, token_ids), expected)


def test_sequences_of_many_lengths_decode_together_as_alone():
    lengths = [1, 2, 4, 5, 8, 13, 17, 24]
    pages = np.split(np.arange(1, 49), len(lengths))
    prompts = [prompt_of(TINY_CONFIG, seed)[:n] for seed, n in enumerate(lengths)]
    together = new_model(TINY_CONFIG, num_pages=64)
    for prompt, own in zip(prompts, pages, strict=True):
        prefill(together, prompt[:-1], own.tolist())
    rows = together.run(
        [prompt[-1] for prompt in prompts],
        [len(prompt) - 1 for prompt in prompts],
        [own.tolist() for own in pages],
    )
    for prompt, row in zip(prompts, rows, strict=True):
        alone = prefill(new_model(TINY_CONFIG), prompt)[-1]
        np.testing.assert_array_equal(row, alone)


def test_bf16_as_bits_is_bf16():
    token_ids = prompt_of(TINY_CONFIG)
    for dtypes in DTYPES[1:]:
        plain = new_model(TINY_CONFIG, dtypes=dtypes, with_bits=False)
        bits = new_model(TINY_CONFIG, dtypes=dtypes, with_bits=True)
        np.testing.assert_array_equal(
            prefill(bits, token_ids), prefill(plain, token_ids)
        )
