# mypy: allow-subclassing-any
"""Llama 2 and 3 as Flax NNX modules over paged keys and values.

Kernels lie [in, out], so that `x @ kernel` reads them as they are in the arena.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from jscale.core.partition import BlockKind
from jscale.models.bits import decoded
from jscale.models.llama_config import LlamaConfig
from jscale.models.paged_attention import attend, write
from jscale.models.rope import rotate, rotation_of

_kernel_init = nnx.initializers.lecun_normal()


@dataclasses.dataclass(frozen=True)
class Tile:
    """Where the rows of one tile stand, and how their positions rotate."""

    positions: Int[Array, "batch"]
    page_table: Int[Array, "batch pages"]
    rotation: tuple[Float[Array, "batch 1 head_dim"], Float[Array, "batch 1 head_dim"]]


@dataclasses.dataclass(frozen=True)
class KvPools:
    """Keys and values of the layers of one block."""

    keys: Shaped[Array, "layers pages page_tokens kv_heads head_dim"]
    values: Shaped[Array, "layers pages page_tokens kv_heads head_dim"]


jax.tree_util.register_dataclass(KvPools)


class Norm(nnx.Module):
    """Root-mean-square norm."""

    def __init__(self, config: LlamaConfig) -> None:
        self.eps = config.rms_norm_eps
        self.scale = nnx.Param(jnp.ones((config.hidden_size,)))

    def __call__(self, x: Float[Array, "batch embed"]) -> Float[Array, "batch embed"]:
        """The rows at unit mean square, scaled; computed in float32."""
        wide = x.astype(jnp.float32)
        wide *= lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        scale = decoded(self.scale[...]).astype(jnp.float32)
        return (wide * scale).astype(x.dtype)


class Attention(nnx.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs) -> None:
        embed, head_dim = config.hidden_size, config.head_dim
        queries, keys = config.num_heads * head_dim, config.num_kv_heads * head_dim
        self.head_dim = head_dim
        self.query = _kernel(embed, queries, rngs)
        self.key = _kernel(embed, keys, rngs)
        self.value = _kernel(embed, keys, rngs)
        self.output = _kernel(queries, embed, rngs)

    def __call__(
        self,
        x: Float[Array, "batch embed"],
        pools: KvPools,
        layer: Int[Array, ""],
        tile: Tile,
    ) -> tuple[Float[Array, "batch embed"], KvPools]:
        """What the rows find in their sequences; the pools with the rows written."""
        query = rotate(self._heads(x, self.query), tile.rotation)
        key = rotate(self._heads(x, self.key), tile.rotation)
        value = self._heads(x, self.value)
        where = (tile.page_table, tile.positions)
        pools = KvPools(
            keys=write(pools.keys, layer, *where, key),
            values=write(pools.values, layer, *where, value),
        )
        mixed = attend(query, pools.keys, pools.values, layer, *where)
        mixed = mixed.reshape(x.shape[0], -1).astype(x.dtype)
        return _product(mixed, self.output[...]), pools

    def _heads(
        self, x: Float[Array, "batch embed"], kernel: nnx.Param[Array]
    ) -> Float[Array, "batch heads head_dim"]:
        projected = _product(x, kernel[...]).astype(jnp.float32)
        return projected.reshape(x.shape[0], -1, self.head_dim)


class Mlp(nnx.Module):
    """The gated feed-forward part (SwiGLU)."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs) -> None:
        embed, inner = config.hidden_size, config.intermediate_size
        self.gate = _kernel(embed, inner, rngs)
        self.up = _kernel(embed, inner, rngs)
        self.down = _kernel(inner, embed, rngs)

    def __call__(self, x: Float[Array, "batch embed"]) -> Float[Array, "batch embed"]:
        """Each row by itself, through the wider inner space."""
        gate = nnx.silu(_product(x, self.gate[...]))
        return _product(gate * _product(x, self.up[...]), self.down[...])


class Layer(nnx.Module):
    """One decoder layer."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs) -> None:
        self.attention_norm = Norm(config)
        self.attention = Attention(config, rngs)
        self.mlp_norm = Norm(config)
        self.mlp = Mlp(config, rngs)

    def __call__(
        self,
        x: Float[Array, "batch embed"],
        pools: KvPools,
        layer: Int[Array, ""],
        tile: Tile,
    ) -> tuple[Float[Array, "batch embed"], KvPools]:
        """The rows after this layer; the pools with the rows written."""
        found, pools = self.attention(self.attention_norm(x), pools, layer, tile)
        x = x + found
        return x + self.mlp(self.mlp_norm(x)), pools


class Embed(nnx.Module):
    """The token embedding."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs) -> None:
        shape = (config.vocab_size, config.hidden_size)
        init = nnx.initializers.normal(stddev=config.hidden_size**-0.5)
        self.table = nnx.Param(init(rngs.params(), shape))

    def __call__(self, token_ids: Int[Array, "batch"]) -> Float[Array, "batch embed"]:
        """The embedding of each token, in the dtype of the table."""
        return decoded(jnp.take(self.table[...], token_ids, axis=0, mode="clip"))


class Head(nnx.Module):
    """The final norm and the projection to logits."""

    def __init__(
        self, config: LlamaConfig, rngs: nnx.Rngs, *, has_kernel: bool
    ) -> None:
        self.norm = Norm(config)
        if has_kernel:
            self.kernel = _kernel(config.hidden_size, config.vocab_size, rngs)

    def __call__(self, x: Float[Array, "batch embed"]) -> Float[Array, "batch vocab"]:
        """Logits in float32.

        The barrier ties the kernel to the rows: else XLA casts it ahead of the loop
        over tiles, whether or not any of them wants logits.
        """
        both = (self.norm(x), self.kernel[...])
        x, kernel = lax.optimization_barrier(both)  # type: ignore[no-untyped-call]
        return _product(x, kernel, jnp.float32)


class LlamaBlock(nnx.Module):
    """A run of layers, after the embedding and before the head where it has them.

    The layers are stacked: each leaf of `layers` has them along its first axis. With
    all layers, the embedding and the head it is the whole model, and then a tied head
    may leave out its kernel. As a block it has a copy: the table may be elsewhere.
    """

    def __init__(
        self,
        config: LlamaConfig,
        kind: BlockKind,
        rngs: nnx.Rngs,
        *,
        has_kernel: bool = True,
    ) -> None:
        self.config = config
        self.kind = kind

        keys = jax.random.split(rngs.params(), kind.num_layers)
        self.layers = nnx.vmap(lambda key: Layer(config, nnx.Rngs(key)))(keys)
        if kind.has_embed:
            self.embed = Embed(config, rngs)
        if kind.has_head:
            self.head = Head(config, rngs, has_kernel=has_kernel)

    def __call__(
        self,
        x: Int[Array, "batch"] | Float[Array, "batch embed"],
        pools: KvPools,
        positions: Int[Array, "batch"],
        page_table: Int[Array, "batch pages"],
        *,
        compute_dtype: str,
        wants_logits: Bool[Array, ""] | None = None,
    ) -> tuple[Float[Array, "batch embed_or_vocab"], KvPools]:
        """See `BlockApply`."""
        tile = Tile(positions, page_table, rotation_of(self.config, positions))
        if self.kind.has_embed:
            x = self.embed(x)
        x, pools = self._through_layers(x.astype(compute_dtype), pools, tile)
        if not self.kind.has_head:
            return x, pools
        if wants_logits is None:
            return self.head(x), pools
        nothing = jnp.zeros((x.shape[0], self.config.vocab_size), jnp.float32)
        return lax.cond(wants_logits, self.head, lambda _: nothing, x), pools

    def _through_layers(
        self, x: Float[Array, "batch embed"], pools: KvPools, tile: Tile
    ) -> tuple[Float[Array, "batch embed"], KvPools]:
        """One loop over the layers, the same code however many there are.

        XLA inlines a loop that it knows to turn once, and then fuses its body with what
        surrounds it: other bits for a block of one layer. So it must not know.
        """
        graph, stacked = nnx.split(self.layers)

        def turn(
            index: Int[Array, ""], carry: tuple[Array, KvPools]
        ) -> tuple[Array, KvPools]:
            weights = jax.tree.map(
                lambda leaf: lax.dynamic_index_in_dim(leaf, index, keepdims=False),
                stacked,
            )
            layer: Layer = nnx.merge(graph, weights)
            return layer(carry[0], carry[1], index, tile)

        num_layers = jnp.where(tile.positions[0] >= 0, self.kind.num_layers, 0)
        x, pools = lax.fori_loop(0, num_layers, turn, (x, pools))
        return x, pools


def _kernel(num_in: int, num_out: int, rngs: nnx.Rngs) -> nnx.Param[Array]:
    return nnx.Param(_kernel_init(rngs.params(), (num_in, num_out)))


def _product(
    x: Float[Array, "batch in"],
    kernel: Shaped[Array, "in out"],
    result_dtype: jnp.dtype | None = None,
) -> Float[Array, "batch out"]:
    """The rows times a kernel, in the dtype of the rows, accumulated in float32."""
    return jnp.dot(
        x,
        decoded(kernel).astype(x.dtype),
        precision="highest",
        preferred_element_type=result_dtype or x.dtype,
    )
