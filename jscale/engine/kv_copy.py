"""KV pages of a block out of its pools as bytes, and into the pools of another worker.

Compiled ahead of time like the steps, and shipped with them: a hand-over compiles
nothing. A call moves a *piece*: so many pages of one block, as few as none of them are
padding pages. Its bytes are the keys, then the values, as the pools hold them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, Shaped

from jscale.core.units import KIB
from jscale.engine.program import ModelProgram, carrying_dtype

PIECE_BYTES = 256 * KIB
"""A piece is no larger unless a single page is: chunks of a multicast that share its
link wait for one piece at most."""

DONATED_ARGUMENTS = (0, 1)


@dataclasses.dataclass(frozen=True, order=True)
class KvCopySpec:
    """What an executable is for: pieces of blocks of so many layers, out or in."""

    num_layers: int
    is_write: bool

    @property
    def name(self) -> str:
        """Unique within a model: `kv-read.4`."""
        return f"kv-{'write' if self.is_write else 'read'}.{self.num_layers}"


def kv_copy_specs(program: ModelProgram) -> tuple[KvCopySpec, ...]:
    """The executables that move the KV of every block of a model."""
    layers = sorted({block.num_layers for block in program.partition.blocks})
    return tuple(
        KvCopySpec(num_layers, is_write)
        for num_layers in layers
        for is_write in (False, True)
    )


def kv_piece_shape(program: ModelProgram, num_layers: int) -> tuple[int, ...]:
    """`[2, layers, pages, …]`: keys and values of the pages that one call moves."""
    engine = program.engine
    shape = program.family.kv_shape(program.model, num_layers, 1, engine.page_tokens)
    page_bytes = kv_bytes_per_token(program, num_layers) * engine.page_tokens
    num_pages = min(max(1, PIECE_BYTES // page_bytes), engine.pages_per_sequence)
    return 2, shape[0], num_pages, *shape[2:]


def kv_bytes_per_token(program: ModelProgram, num_layers: int) -> int:
    """What keys and values of one token are in so many layers."""
    values = program.family.kv_values_per_token(program.model)
    item = jnp.dtype(carrying_dtype(program.engine.compute_dtype)).itemsize
    return values * item * num_layers // program.model.num_layers


def kv_copy_arguments(program: ModelProgram, spec: KvCopySpec) -> tuple[Any, ...]:
    """The shapes that an executable takes: pools, pages and, to write, a piece."""
    abstract: Any = jax.ShapeDtypeStruct
    engine = program.engine
    dtype = carrying_dtype(engine.compute_dtype)
    pool = abstract(
        program.family.kv_shape(
            program.model, spec.num_layers, 1 + engine.num_pages, engine.page_tokens
        ),
        dtype,
    )
    shape = kv_piece_shape(program, spec.num_layers)
    pages = abstract((shape[2],), jnp.int32)
    piece = (abstract(shape, dtype),) if spec.is_write else ()
    return pool, pool, pages, *piece


def kv_copy_step(spec: KvCopySpec) -> Callable[..., Any]:
    """The function of an executable; a write donates its pools."""
    return _write if spec.is_write else _read


Pool = Shaped[Array, "layers pages page_tokens kv_heads head_dim"]
Piece = Shaped[Array, "two layers piece page_tokens kv_heads head_dim"]


def _read(k_pool: Pool, v_pool: Pool, pages: Int[Array, "piece"]) -> Piece:
    """Page by page, since XLA gathers on CPU three times slower."""
    num_layers, _, *rest = k_pool.shape

    def turn(index: Array, piece: Array) -> Array:
        for half, pool in enumerate((k_pool, v_pool)):
            page = lax.dynamic_slice_in_dim(pool, pages[index], 1, axis=1)
            start: Any = (half, 0, index, *(0 for _ in rest))
            piece = lax.dynamic_update_slice(piece, page[None], start)
        return piece

    empty = jnp.zeros((2, num_layers, len(pages), *rest), k_pool.dtype)
    made: Array = lax.fori_loop(0, len(pages), turn, empty)
    return made


def _write(
    k_pool: Pool, v_pool: Pool, pages: Int[Array, "piece"], piece: Piece
) -> tuple[Pool, Pool]:
    def turn(index: Array, pools: tuple[Array, Array]) -> tuple[Array, Array]:
        keys, values = (
            lax.dynamic_update_slice_in_dim(
                pool,
                lax.dynamic_slice_in_dim(half, index, 1, axis=1),
                pages[index],
                axis=1,
            )
            for pool, half in zip(pools, piece, strict=True)
        )
        return keys, values

    made: tuple[Array, Array] = lax.fori_loop(0, len(pages), turn, (k_pool, v_pool))
    return made
