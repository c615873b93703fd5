"""Attention over pages, against attention the obvious way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jscale.models.paged_attention import attend, write

LAYERS, PAGES, PAGE_TOKENS, KV_HEADS, GROUP, HEAD_DIM = 2, 24, 4, 2, 3, 8
TABLES = np.arange(1, 21).reshape(4, 5)
POSITIONS = np.array([0, 3, 4, 18])
SHAPE = (LAYERS, PAGES, PAGE_TOKENS, KV_HEADS, HEAD_DIM)


def random(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def attended(k_pool, v_pool, layer=1):
    query = random(0, len(POSITIONS), KV_HEADS * GROUP, HEAD_DIM)
    return query, np.asarray(
        jax.jit(attend)(query, k_pool, v_pool, layer, TABLES, POSITIONS)
    )


def naive(query, k_pool, v_pool, row):
    seen = POSITIONS[row] + 1
    keys = k_pool[1, TABLES[row]].reshape(-1, KV_HEADS, HEAD_DIM)[:seen]
    values = v_pool[1, TABLES[row]].reshape(-1, KV_HEADS, HEAD_DIM)[:seen]
    keys, values = (np.repeat(each, GROUP, axis=1) for each in (keys, values))
    scores = np.einsum("hd,phd->hp", query[row], keys) / np.sqrt(HEAD_DIM)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("hp,phd->hd", weights, values)


def test_each_row_attends_to_its_own_pages_up_to_its_position():
    k_pool, v_pool = random(1, *SHAPE), random(2, *SHAPE)
    query, found = attended(k_pool, v_pool)
    for row in range(len(POSITIONS)):
        np.testing.assert_allclose(
            found[row], naive(query, k_pool, v_pool, row), rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e38])
def test_what_others_left_in_a_page_reaches_nobody(poison):
    clean = [random(1, *SHAPE), random(2, *SHAPE)]
    dirty = [np.full(SHAPE, poison, np.float32) for _ in clean]
    for row, position in enumerate(POSITIONS):
        for place in range(position + 1):
            at = (1, TABLES[row, place // PAGE_TOKENS], place % PAGE_TOKENS)
            for to, source in zip(dirty, clean, strict=True):
                to[at] = source[at]
    np.testing.assert_array_equal(attended(*dirty)[1], attended(*clean)[1])


def test_large_scores_do_not_overflow():
    k_pool, v_pool = 1e4 * random(1, *SHAPE), random(2, *SHAPE)
    query, found = attended(k_pool, v_pool)
    for row in range(len(POSITIONS)):
        np.testing.assert_allclose(
            found[row], naive(query, k_pool, v_pool, row), rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, jnp.bfloat16])
def test_rows_are_written_at_their_positions_and_nowhere_else(dtype):
    vectors = random(3, len(POSITIONS), KV_HEADS, HEAD_DIM)
    pool = np.asarray(
        jax.jit(write)(jnp.zeros(SHAPE, dtype), 1, TABLES, POSITIONS, vectors)
    )
    expected = np.zeros(SHAPE, np.float32)
    for row, position in enumerate(POSITIONS):
        page = TABLES[row, position // PAGE_TOKENS]
        expected[1, page, position % PAGE_TOKENS] = vectors[row]
    if dtype != np.float32:
        expected = expected.astype(jnp.bfloat16)
    found = pool.view(jnp.bfloat16) if dtype == np.uint16 else pool
    np.testing.assert_array_equal(found, expected)
