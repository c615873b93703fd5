"""Rotary position embeddings, half-split as Hugging Face has them."""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jscale.models.llama_config import LlamaConfig, RopeScaling


def rotation_of(
    config: LlamaConfig, positions: Int[Array, "batch"]
) -> tuple[Float[Array, "batch 1 head_dim"], Float[Array, "batch 1 head_dim"]]:
    """Cosines and sines of the angles by which positions turn queries and keys."""
    angles = positions[:, None].astype(jnp.float32) * frequencies(config)
    angles = jnp.concatenate([angles, angles], axis=-1)[:, None, :]
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "batch heads head_dim"],
    rotation: tuple[Float[Array, "batch 1 head_dim"], Float[Array, "batch 1 head_dim"]],
) -> Float[Array, "batch heads head_dim"]:
    """Each head's vector turned: entry i pairs with entry i + head_dim / 2."""
    cosines, sines = rotation
    first, second = jnp.split(x, 2, axis=-1)
    return x * cosines + jnp.concatenate([-second, first], axis=-1) * sines


@functools.cache
def frequencies(config: LlamaConfig) -> Float[np.ndarray, "half_head_dim"]:
    """Radians that each pair of entries turns per position, in float32."""
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim
    turning = config.rope_theta**-exponents
    if config.rope_scaling is not None:
        turning = _stretched(turning, config.rope_scaling)
    return np.asarray(turning, np.float32)


def _stretched(
    turning: Float[np.ndarray, "half_head_dim"], scaling: RopeScaling
) -> Float[np.ndarray, "half_head_dim"]:
    """Frequencies slowed as Llama 3.1 does it.

    Source: `apply_scaling` of meta-llama/llama-models, written as one blend.
    """
    turns = scaling.original_max_position * turning / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    keep = np.clip((turns - low) / (high - low), 0, 1)
    return np.asarray(keep * turning + (1 - keep) * turning / scaling.factor)
