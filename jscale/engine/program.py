"""A model as the functions that executables are compiled from."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jscale.core.partition import BlockKind, Partition
from jscale.engine.config import TILE_ROWS, EngineConfig
from jscale.engine.rows import NUM_ROW_FIELDS, RowFields
from jscale.engine.sampler import sample
from jscale.models.bits import bits_dtype
from jscale.models.block import BlockApply, ModelConfig, ModelFamily
from jscale.models.registry import family
from jscale.store.manifest import Manifest


@dataclasses.dataclass(frozen=True, order=True)
class ExecutableSpec:
    """What an executable is for: a run of blocks of these kinds, at a bucket.

    One kind serves every block of that kind; several are a model fused into one.
    """

    kinds: tuple[BlockKind, ...]
    bucket: int

    @property
    def name(self) -> str:
        """Unique within a model: `embed+4.4+head@16`."""
        return f"{'.'.join(kind.name for kind in self.kinds)}@{self.bucket}"

    @property
    def is_fused(self) -> bool:
        """Whether it runs more than one block."""
        return len(self.kinds) > 1


@dataclasses.dataclass(frozen=True)
class StepArguments:
    """What a step takes: leaves and pools of each block, rows, activations.

    `x` is `[bucket, embed]`, or None where the first block has the embedding: its
    token ids are among the rows. Pools are donated.
    """

    leaves: tuple[tuple[Any, ...], ...]
    k_pools: tuple[Any, ...]
    v_pools: tuple[Any, ...]
    rows: Any
    num_tiles: Any
    x: Any

    def flat(self) -> tuple[Any, ...]:
        """The positional arguments of the step."""
        return (
            self.leaves,
            self.k_pools,
            self.v_pools,
            self.rows,
            self.num_tiles,
            self.x,
        )


StepOutput = tuple[Any, tuple[Array, ...], tuple[Array, ...]]
"""Activations `[bucket, embed]`, or tokens and logprobs `[bucket]` each; k_pools;
v_pools."""

DONATED_ARGUMENTS = (1, 2)


@dataclasses.dataclass(frozen=True)
class ModelProgram:
    """Everything that decides what a worker's executables are."""

    family: ModelFamily[Any]
    model: ModelConfig
    partition: Partition
    dtype: str
    engine: EngineConfig

    @staticmethod
    def of(manifest: Manifest, engine: EngineConfig) -> "ModelProgram":
        """The program of a block store's model.

        Raises:
          CheckpointError: the family or its config is not known here.
        """
        of_family = family(manifest.family)
        return ModelProgram(
            family=of_family,
            model=of_family.config_from_dict(manifest.config),
            partition=manifest.partition,
            dtype=manifest.dtype,
            engine=engine,
        )

    def stage_specs(self) -> tuple[ExecutableSpec, ...]:
        """The executables that any stage can be walked with."""
        return tuple(
            ExecutableSpec((kind,), bucket)
            for bucket in self.engine.row_buckets
            for kind in self.partition.kinds
        )

    def fused_specs(self) -> tuple[ExecutableSpec, ...]:
        """The executables of the whole model; none if it is a single block."""
        kinds = tuple(block.kind for block in self.partition.blocks)
        if len(kinds) == 1:
            return ()
        return tuple(
            ExecutableSpec(kinds, bucket) for bucket in self.engine.row_buckets
        )

    def kv_shape(self, kind: BlockKind) -> tuple[int, ...]:
        """Shape of the key pool, and of the value pool, of a block of that kind.

        Page 0, for padding, comes on top of the pages that the settings name.
        """
        return self.family.kv_shape(
            self.model,
            kind.num_layers,
            1 + self.engine.num_pages,
            self.engine.page_tokens,
        )

    def arguments(self, spec: ExecutableSpec) -> StepArguments:
        """The shapes that an executable takes: all that compiling it needs."""
        abstract: Any = jax.ShapeDtypeStruct
        compute_dtype = self.engine.compute_dtype
        width = NUM_ROW_FIELDS + self.engine.pages_per_sequence
        pools = tuple(
            abstract(self.kv_shape(kind), carrying_dtype(compute_dtype))
            for kind in spec.kinds
        )
        leaf_dtype = carrying_dtype(self.dtype)
        has_embed = spec.kinds[0].has_embed
        activations = abstract((spec.bucket, self.model.hidden_size), compute_dtype)
        return StepArguments(
            leaves=tuple(
                tuple(
                    self.family.abstract_leaves(self.model, kind, leaf_dtype).values()
                )
                for kind in spec.kinds
            ),
            k_pools=pools,
            v_pools=pools,
            rows=abstract((spec.bucket, width), jnp.int32),
            num_tiles=abstract((), jnp.int32),
            x=None if has_embed else activations,
        )

    def step(self, spec: ExecutableSpec) -> Callable[..., StepOutput]:
        """The function of an executable: each block over all tiles, then the next.

        A fused step is a walk that XLA sees as a whole. A barrier stands after each
        block, so that nothing is computed otherwise than in the walk.
        """
        applies = tuple(
            self.family.apply(self.model, kind, self.engine.compute_dtype)
            for kind in spec.kinds
        )

        def run(
            leaves: tuple[tuple[Array, ...], ...],
            k_pools: tuple[Array, ...],
            v_pools: tuple[Array, ...],
            rows: Int[Array, "batch fields"],
            num_tiles: Int[Array, ""],
            x: Any,
        ) -> StepOutput:
            pools = []
            for index, kind in enumerate(spec.kinds):
                walk = _Walk(applies[index], kind, leaves[index], rows, x)
                empty = self._empty_output(kind, spec.bucket)
                carry = (k_pools[index], v_pools[index], empty)
                *pool, x = lax.fori_loop(0, num_tiles, walk.turn, carry)
                pools.append(pool)
                x = _barrier(x)
            keys, values = zip(*pools, strict=True)
            return x, keys, values

        return run

    def _empty_output(self, kind: BlockKind, bucket: int) -> Any:
        """Where the tiles of a block put what they make."""
        if kind.has_head:
            return jnp.zeros(bucket, jnp.int32), jnp.zeros(bucket, jnp.float32)
        return jnp.zeros((bucket, self.model.hidden_size), self.engine.compute_dtype)


def carrying_dtype(dtype: str) -> str:
    """The dtype of the arrays that leaves and pools of `dtype` are: bits on CPU."""
    return bits_dtype(dtype) if jax.default_backend() == "cpu" else dtype


_barrier: Any = lax.optimization_barrier


@dataclasses.dataclass(frozen=True)
class _Walk:
    """One block walked over the tiles of a step."""

    apply: BlockApply
    kind: BlockKind
    leaves: tuple[Array, ...]
    rows: Int[Array, "batch fields"]
    x: Float[Array, "batch embed"] | None

    def turn(self, tile: Array, carry: tuple[Array, Array, Any]) -> Any:
        """Computes one tile; `carry` is both pools and the output so far."""
        k_pool, v_pool, output = carry
        first = tile * TILE_ROWS
        fields = RowFields.of(lax.dynamic_slice_in_dim(self.rows, first, TILE_ROWS))
        if self.x is None:
            x = fields.token_ids
        else:
            x = lax.dynamic_slice_in_dim(self.x, first, TILE_ROWS)
        made: Any
        made, k_pool, v_pool = self.apply(
            self.leaves,
            k_pool,
            v_pool,
            x,
            fields.positions,
            fields.page_table,
            jnp.any(fields.sampled) if self.kind.has_head else None,
        )
        if self.kind.has_head:
            made = sample(
                made,
                temperature=fields.temperature,
                top_k=fields.top_k,
                top_p=fields.top_p,
                seed=fields.seed,
                position=fields.positions,
                sampled=fields.sampled,
            )
        output = jax.tree.map(
            lambda whole, part: lax.dynamic_update_slice_in_dim(whole, part, first, 0),
            output,
            made,
        )
        return k_pool, v_pool, output
