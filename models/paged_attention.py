"""Attention over keys and values that lie in pages."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

from jscale.models.bits import decoded, encoded

MASKED = -1e30
"""Score of what a row may not see: exp() of its distance to any score is exactly 0,
and unlike -inf it cannot make a NaN of inf - inf."""


def write(
    pool: Shaped[Array, "layers pages page_tokens kv_heads head_dim"],
    layer: Int[Array, ""],
    page_table: Int[Array, "batch pages"],
    positions: Int[Array, "batch"],
    vectors: Float[Array, "batch kv_heads head_dim"],
) -> Shaped[Array, "layers pages page_tokens kv_heads head_dim"]:
    """The pool with each row's vectors at its position, in the pool's dtype."""
    page_tokens = pool.shape[2]
    logical = (positions // page_tokens)[:, None]
    physical = jnp.take_along_axis(page_table, logical, axis=1)[:, 0]
    return pool.at[layer, physical, positions % page_tokens].set(
        encoded(vectors, pool.dtype)
    )


def attend(
    query: Float[Array, "batch heads head_dim"],
    k_pool: Shaped[Array, "layers pages page_tokens kv_heads head_dim"],
    v_pool: Shaped[Array, "layers pages page_tokens kv_heads head_dim"],
    layer: Int[Array, ""],
    page_table: Int[Array, "batch pages"],
    positions: Int[Array, "batch"],
) -> Float[Array, "batch heads head_dim"]:
    """What each row's query finds at the positions up to its own, in float32.

    One page of every row per turn, with a running maximum, so that memory does not
    grow with the context. Turns after a row's last page change no bit of its result:
    they add exact zeros. Entries that a row may not see are never computed with, so
    that whatever another sequence left in a page, even a NaN, cannot reach it.
    """
    batch, _, head_dim = query.shape
    page_tokens, kv_heads = k_pool.shape[2:4]
    grouped = query.astype(jnp.float32).reshape(batch, kv_heads, -1, head_dim)
    grouped *= head_dim**-0.5

    def turn(page: Int[Array, ""], carry: tuple[Array, ...]) -> tuple[Array, ...]:
        maximum, total, mixed = carry
        physical = page_table[:, page]
        seen = page * page_tokens + jnp.arange(page_tokens) <= positions[:, None]
        seen = seen[:, None, None, :]
        keys = decoded(k_pool[layer, physical]).astype(jnp.float32)
        values = decoded(v_pool[layer, physical]).astype(jnp.float32)
        values = jnp.where(jnp.moveaxis(seen, -1, 1), values, 0.0)
        scores = jnp.einsum("bkgd,bpkd->bkgp", grouped, keys, precision="highest")
        scores = jnp.where(seen, scores, MASKED)
        higher = jnp.maximum(maximum, scores.max(axis=-1))
        shrink = jnp.exp(maximum - higher)
        weights = jnp.exp(scores - higher[..., None])
        mixture = jnp.einsum("bkgp,bpkd->bkgd", weights, values, precision="highest")
        return (
            higher,
            total * shrink + weights.sum(axis=-1),
            mixed * shrink[..., None] + mixture,
        )

    start = (
        jnp.full(grouped.shape[:-1], MASKED),
        jnp.zeros(grouped.shape[:-1]),
        jnp.zeros(grouped.shape),
    )
    num_pages = positions.max() // page_tokens + 1
    _, total, mixed = lax.fori_loop(0, num_pages, turn, start)
    return jnp.reshape(mixed / total[..., None], query.shape)
