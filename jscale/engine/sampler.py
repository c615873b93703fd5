"""Tokens from logits, each by its own row's parameters alone."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt

Rows = Array
"""`[rows]`: one value a row."""


def sample(
    logits: Float[Array, "rows vocab"],
    *,
    temperature: Float[Array, "rows"],
    top_k: Int[Array, "rows"],
    top_p: Float[Array, "rows"],
    seed: UInt[Array, "rows"],
    position: Int[Array, "rows"],
    sampled: Bool[Array, "rows"],
) -> tuple[Int[Array, "rows"], Float[Array, "rows"]]:
    """One token a row and the logprob that the model gave it.

    Temperature 0 takes the best logit, the first of equals. Otherwise Gumbel noise
    from the key (seed, position) is added to the logits over the temperature, and the
    best of the `top_k` and of the smallest set that reaches `top_p` is taken: so a
    token depends on the row's own logits, parameters, seed and position, never on the
    batch, and a sequence handed over goes on with the same stream. Tokens that tie
    with the last one let in are let in too. `top_k` 0 and `top_p` 1 let all in.

    The logprob is that of the untempered, uncut distribution. Noise and sorting are
    skipped when no row with `sampled` has a temperature.
    """
    greedy = jnp.argmax(logits, axis=-1).astype(jnp.int32)

    def draw() -> Int[Array, "rows"]:
        drawn = _draw(logits, temperature, top_k, top_p, seed, position)
        return jnp.where(temperature > 0, drawn, greedy)

    token = jax.lax.cond(jnp.any(sampled & (temperature > 0)), draw, lambda: greedy)
    chosen = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]
    return token, chosen - jax.nn.logsumexp(logits, axis=-1)


def _draw(
    logits: Float[Array, "rows vocab"],
    temperature: Rows,
    top_k: Rows,
    top_p: Rows,
    seed: Rows,
    position: Rows,
) -> Int[Array, "rows"]:
    """The Gumbel-max draw of every row."""
    vocab = logits.shape[-1]
    scaled = logits / jnp.where(temperature > 0, temperature, 1.0)[:, None]
    scaled -= jnp.max(scaled, axis=-1, keepdims=True)
    best_first = -jnp.sort(-scaled, axis=-1)
    rank = jnp.arange(vocab, dtype=jnp.int32)[None, :]
    limit = jnp.where(top_k > 0, jnp.minimum(top_k, vocab), vocab)[:, None]
    weight = jnp.where(rank < limit, jnp.exp(best_first), 0.0)
    mass_before = jnp.cumsum(weight, axis=-1) - weight
    wanted = top_p[:, None] * jnp.sum(weight, axis=-1, keepdims=True)
    # A top_p of 1 lets all in: rounding of the sums must not take the tail away.
    let_in = (rank < limit) & ((mass_before < wanted) | (top_p[:, None] >= 1.0))
    num_in = jnp.maximum(jnp.sum(let_in, axis=-1, keepdims=True), 1)
    threshold = jnp.take_along_axis(best_first, num_in - 1, axis=-1)
    noise = jax.vmap(lambda s, p: _gumbel(s, p, vocab))(seed, position)
    scores = jnp.where(scaled >= threshold, scaled + noise, -jnp.inf)
    return jnp.argmax(scores, axis=-1).astype(jnp.int32)


def _gumbel(seed: Array, position: Array, vocab: int) -> Float[Array, "vocab"]:
    """The noise of one row."""
    key = jax.random.fold_in(jax.random.key(seed), position)
    return jax.random.gumbel(key, (vocab,), jnp.float32)
