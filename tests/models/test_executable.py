"""What XLA makes of a block: pools stay in place, weights where they lie."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jscale.core.partition import BlockKind
from jscale.models.bits import as_bits, bits_dtype
from jscale.models.llama_family import LLAMA
from jscale.models.testing import TINY_CONFIG, tile_walk

CONFIG = dataclasses.replace(TINY_CONFIG, hidden_size=256, intermediate_size=512)
KIND = BlockKind(16, has_embed=True, has_head=True)
PAGES, PAGE_TOKENS, ROWS = 512, 16, 32


@pytest.mark.parametrize(
    ("dtype", "compute_dtype"),
    [("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "bfloat16")],
)
def test_neither_pools_nor_weights_are_copied(dtype, compute_dtype):
    def abstract(shape, dtype="int32"):
        return jax.ShapeDtypeStruct(shape, dtype)

    leaves = tuple(LLAMA.abstract_leaves(CONFIG, KIND, bits_dtype(dtype)).values())
    shape = LLAMA.kv_shape(CONFIG, KIND.num_layers, PAGES, PAGE_TOKENS)
    pool = abstract(shape, bits_dtype(compute_dtype))
    rows = (abstract((ROWS,)), abstract((ROWS,)), abstract((ROWS, 8)))
    walk = tile_walk(CONFIG, KIND, compute_dtype)
    compiled = walk.lower(abstract(()), leaves, pool, pool, *rows).compile()
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= 2 * np.prod(shape) * pool.dtype.itemsize
    one_layer = LLAMA.part_sizes(CONFIG, "float32").layer_bytes
    assert memory.temp_size_in_bytes < 2 * one_layer


def test_without_a_wish_for_logits_there_are_none_and_kv_is_written_all_the_same():
    kind = BlockKind(2, has_embed=True, has_head=True)
    apply = jax.jit(LLAMA.apply(TINY_CONFIG, kind, "float32"))
    shapes = LLAMA.abstract_leaves(TINY_CONFIG, kind, "float32").values()
    rng = np.random.default_rng(0)
    leaves = tuple(jnp.asarray(rng.standard_normal(each.shape)) for each in shapes)
    pool = jnp.zeros(LLAMA.kv_shape(TINY_CONFIG, 2, 8, 4))
    rows = np.arange(16, dtype=np.int32)
    table = np.tile(np.arange(1, 5, dtype=np.int32), (16, 1))
    wanted, *pools = apply(leaves, pool, pool, rows, rows, table, True)
    spared, *same_pools = apply(leaves, pool, pool, rows, rows, table, False)
    assert np.abs(wanted).max() > 0
    assert np.abs(spared).max() == 0
    for pool, same_pool in zip(pools, same_pools, strict=True):
        np.testing.assert_array_equal(pool, same_pool)


def test_bits_of_a_leaf_lie_where_the_leaf_lies():
    leaf = jnp.arange(4096, dtype=jnp.bfloat16)
    bits = as_bits(leaf)
    assert bits.dtype == jnp.uint16
    assert bits.unsafe_buffer_pointer() == leaf.unsafe_buffer_pointer()
    np.testing.assert_array_equal(np.asarray(bits).view(jnp.bfloat16), leaf)
    other = jnp.zeros(8)
    assert as_bits(other) is other
