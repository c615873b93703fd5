"""Small models for tests, a naive reference, and the way an engine runs tiles."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jscale.core.partition import Block, BlockKind, Partition
from jscale.models.bits import as_bits, bits_dtype
from jscale.models.block import TILE_ROWS
from jscale.models.llama_config import LlamaConfig
from jscale.models.llama_family import LLAMA
from jscale.models.rope import frequencies

TINY_CONFIG = LlamaConfig(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=48,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_context=128,
)
"""Sizes at which a test takes milliseconds; every number differs from the others."""

HfTensors = Mapping[str, np.ndarray]
"""A checkpoint in memory: float32 tensors under their Hugging Face names."""


def random_tensors(config: LlamaConfig, seed: int = 0) -> HfTensors:
    """A checkpoint of random weights, the same for the same seed."""
    rng = np.random.default_rng(seed)
    block = _whole(config)
    leaves = LLAMA.abstract_leaves(config, block.kind, "float32")
    tensors: dict[str, np.ndarray] = {}
    for name, source in LLAMA.hf_sources(config, block).items():
        shape = leaves[name].shape[1:] if source.stacked else leaves[name].shape
        for hf_name in source.names:
            value = rng.standard_normal(shape) * shape[-1] ** -0.5
            value = value + 1 if name.endswith("scale") else value
            value = value.T if source.transpose else value
            tensors.setdefault(hf_name, np.ascontiguousarray(value, np.float32))
    return tensors


def leaves_of(
    config: LlamaConfig, block: Block, tensors: HfTensors, dtype: str = "float32"
) -> tuple[Array, ...]:
    """The leaves of a block as a converter would make them of a checkpoint."""
    sources = LLAMA.hf_sources(config, block)
    leaves = []
    for name in LLAMA.abstract_leaves(config, block.kind, dtype):
        source = sources[name]
        parts = [tensors[hf_name] for hf_name in source.names]
        parts = [part.T if source.transpose else part for part in parts]
        leaves.append(
            jnp.asarray(np.stack(parts) if source.stacked else parts[0], dtype)
        )
    return tuple(leaves)


def dense_logits(
    config: LlamaConfig, tensors: HfTensors, token_ids: Sequence[int]
) -> Float[np.ndarray, "length vocab"]:
    """Logits after each token, the obvious way: NumPy, float64, no pages, no tiles."""
    wide = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    length = len(token_ids)
    angles = np.arange(length)[:, None] * frequencies(config).astype(np.float64)
    turn = np.exp(1j * angles)[:, None, :]
    mask = np.where(np.tri(length, dtype=bool), 0, -np.inf)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        mean = np.mean(x * x, axis=-1, keepdims=True)
        return np.asarray(x / np.sqrt(mean + config.rms_norm_eps) * wide[name])

    def heads(x: np.ndarray, name: str, *, turned: bool) -> np.ndarray:
        y = (x @ wide[name].T).reshape(length, -1, config.head_dim)
        if turned:
            first, second = np.split(y, 2, axis=-1)
            spun = (first + 1j * second) * turn
            y = np.concatenate([spun.real, spun.imag], axis=-1)
        return np.repeat(y, config.num_heads // y.shape[1], axis=1)

    x = wide["model.embed_tokens.weight"][list(token_ids)]
    for index in range(config.num_layers):
        layer = f"model.layers.{index}"
        h = norm(x, f"{layer}.input_layernorm.weight")
        query = heads(h, f"{layer}.self_attn.q_proj.weight", turned=True)
        key = heads(h, f"{layer}.self_attn.k_proj.weight", turned=True)
        value = heads(h, f"{layer}.self_attn.v_proj.weight", turned=False)
        scores = np.einsum("qhd,khd->hqk", query, key) * config.head_dim**-0.5 + mask
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        found = np.einsum("hqk,khd->qhd", weights, value).reshape(length, -1)
        x = x + found @ wide[f"{layer}.self_attn.o_proj.weight"].T
        h = norm(x, f"{layer}.post_attention_layernorm.weight")
        gate = h @ wide[f"{layer}.mlp.gate_proj.weight"].T
        up = h @ wide[f"{layer}.mlp.up_proj.weight"].T
        inner = gate / (1 + np.exp(-gate)) * up
        x = x + inner @ wide[f"{layer}.mlp.down_proj.weight"].T
    tied = config.tie_embeddings
    head = "model.embed_tokens.weight" if tied else "lm_head.weight"
    return np.asarray(norm(x, "model.norm.weight") @ wide[head].T)


class TiledModel:
    """A model cut into blocks and run as the engine runs it. Owned by its caller.

    Each block is one executable that walks tiles in a loop whose length is an argument.
    """

    def __init__(
        self,
        config: LlamaConfig,
        partition: Partition,
        tensors: HfTensors,
        *,
        dtype: str = "float32",
        compute_dtype: str = "float32",
        with_bits: bool = True,
        row_capacity: int = 64,
        num_pages: int = 40,
        page_tokens: int = 4,
    ) -> None:
        self.row_capacity = row_capacity
        self.num_table_pages = -(-config.max_context // page_tokens)
        pool_dtype = bits_dtype(compute_dtype) if with_bits else compute_dtype
        self._blocks: list[_PlacedBlock] = []
        for block in partition.blocks:
            leaves = leaves_of(config, block, tensors, dtype)
            if with_bits:
                leaves = tuple(as_bits(leaf) for leaf in leaves)
            shape = LLAMA.kv_shape(config, block.num_layers, num_pages, page_tokens)
            pools = (jnp.zeros(shape, pool_dtype), jnp.zeros(shape, pool_dtype))
            step = tile_walk(config, block.kind, compute_dtype)
            self._blocks.append((step, leaves, pools))

    def run(
        self,
        token_ids: Sequence[int],
        positions: Sequence[int],
        page_tables: Sequence[Sequence[int]],
    ) -> Float[np.ndarray, "batch vocab"]:
        """Logits of each row; its keys and values stay for later calls."""
        num_rows = len(token_ids)
        x: Any = np.zeros(self.row_capacity, np.int32)
        places = np.zeros(self.row_capacity, np.int32)
        table = np.zeros((self.row_capacity, self.num_table_pages), np.int32)
        x[:num_rows] = token_ids
        places[:num_rows] = positions
        for row, pages in enumerate(page_tables):
            table[row, : len(pages)] = pages
        num_tiles = np.int32(-(-num_rows // TILE_ROWS))
        for index, (step, leaves, pools) in enumerate(self._blocks):
            x, *pools_after = step(num_tiles, leaves, *pools, x, places, table)
            self._blocks[index] = (step, leaves, (pools_after[0], pools_after[1]))
        return np.asarray(x)[:num_rows]


_Pools = tuple[Array, Array]
_PlacedBlock = tuple[Callable[..., Any], tuple[Array, ...], _Pools]


@functools.cache
def tile_walk(
    config: LlamaConfig, kind: BlockKind, compute_dtype: str
) -> Callable[..., tuple[Array, Array, Array]]:
    """A block over the tiles of a batch, under jit, pools donated.

    Takes num_tiles, leaves, k_pool, v_pool, x, positions, page_table.
    """
    apply = LLAMA.apply(config, kind, compute_dtype)
    width = config.vocab_size if kind.has_head else config.hidden_size
    y_dtype = "float32" if kind.has_head else compute_dtype

    def walk(
        num_tiles: Array,
        leaves: tuple[Array, ...],
        k_pool: Array,
        v_pool: Array,
        *rows: Array,
    ) -> tuple[Array, Array, Array]:
        def turn(
            tile: Array, carry: tuple[Array, Array, Array]
        ) -> tuple[Array, Array, Array]:
            y, k_pool, v_pool = carry
            first = tile * TILE_ROWS
            x, positions, page_table = (
                lax.dynamic_slice_in_dim(array, first, TILE_ROWS) for array in rows
            )
            part, k_pool, v_pool = apply(
                leaves, k_pool, v_pool, x, positions, page_table
            )
            y = lax.dynamic_update_slice_in_dim(y, part, first, axis=0)
            return y, k_pool, v_pool

        y = jnp.zeros((len(rows[0]), width), y_dtype)
        y, k_pool, v_pool = lax.fori_loop(0, num_tiles, turn, (y, k_pool, v_pool))
        return y, k_pool, v_pool

    return jax.jit(walk, donate_argnums=(2, 3))


def _whole(config: LlamaConfig) -> Block:
    return Block(0, 0, config.num_layers, has_embed=True, has_head=True)
