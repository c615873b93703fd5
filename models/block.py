"""What a model family promises: blocks laid out, found in checkpoints and applied.

The engine and the checkpoint readers know models only through this file.
"""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

import jax
from jaxtyping import Array, Bool, Float, Int, Shaped

from jscale.core.layout import ALIGNMENT_BYTES, BlockLayout, TensorLayout
from jscale.core.partition import Block, BlockKind
from jscale.core.units import round_up

TILE_ROWS = 16
"""Rows of a tile, the one batch size that a block is ever compiled for.

A row is one token of one sequence. Every tile runs the same machine code, so a row's
result does not depend on the rows beside it: prefill, decode, recomputation and any cut
of the model agree bit for bit. On XLA CPU, batches of other sizes differ by 4e-6."""


@dataclasses.dataclass(frozen=True)
class HfSource:
    """The Hugging Face tensors that make one tensor of a block.

    `names` has one entry, or where `stacked` one for each layer of the block in order:
    the results are stacked along a new first axis. With `transpose`, each is
    transposed first: Hugging Face keeps [out, in], blocks keep [in, out].
    """

    names: tuple[str, ...]
    stacked: bool
    transpose: bool


@dataclasses.dataclass(frozen=True)
class FlaxSource:
    """The leaf of the whole Flax model that holds one tensor of a block.

    `path` leads through the pure dict of its `nnx.State`. With `layers`, the tensor is
    that range of the leaf's first axis, else the leaf, transposed if `transpose`.
    """

    path: tuple[str, ...]
    layers: range | None
    transpose: bool


class ModelConfig(Protocol):
    """What every family's config tells the engine."""

    @property
    def vocab_size(self) -> int:
        """Token ids are under this."""

    @property
    def hidden_size(self) -> int:
        """Width of the activations between blocks."""

    @property
    def num_layers(self) -> int:
        """How many layers the model has."""

    @property
    def max_context(self) -> int:
        """Tokens of the longest sequence that the model was made for."""

    @property
    def bos_token_id(self) -> int | None:
        """The token that starts a text, if there is one."""

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Tokens that end a text."""

    def to_dict(self) -> dict[str, Any]:
        """The config as JSON takes it."""


class BlockApply(Protocol):
    """One block on one tile of `TILE_ROWS` rows: pure, to be called under `jax.jit`."""

    def __call__(
        self,
        leaves: tuple[Array, ...],
        k_pool: Shaped[Array, "layers pages page_tokens kv_heads head_dim"],
        v_pool: Shaped[Array, "layers pages page_tokens kv_heads head_dim"],
        x: Int[Array, "batch"] | Float[Array, "batch embed"],
        positions: Int[Array, "batch"],
        page_table: Int[Array, "batch pages"],
        wants_logits: Bool[Array, ""] | None = None,
    ) -> tuple[Float[Array, "batch embed_or_vocab"], Array, Array]:
        """What the block makes of the rows, and both pools with the rows' KV written.

        The rows' keys and values are written first, then each row attends to all
        positions up to its own, so that rows of one sequence may share a tile. A row
        without a token has position 0 and a page table of zeros: physical page 0
        belongs to nobody.

        Args:
          leaves: the block's tensors in the order of its `BlockLayout`; bf16 ones on
            CPU better as bits (see `jscale.models.bits`).
          k_pool: keys of the block's layers, of any dtype, bf16 on CPU better as bits;
            donate it to have it updated in place.
          v_pool: values of the block's layers; likewise.
          x: token ids where the block has the embedding, else activations.
          positions: place of each row's token in its sequence, from 0.
          page_table: physical page of each page of each row's sequence. Entries after
            the page of the row's position are not used but must be valid pages.
          wants_logits: skip the head, and return zeros, where this is False. Give it
            always or never: which of the two it is may change bits.

        Returns:
          float32 logits where the block has the head, else activations in the compute
          dtype; k_pool; v_pool.
        """


ConfigT = TypeVar("ConfigT", bound=ModelConfig)


class ModelFamily(abc.ABC, Generic[ConfigT]):
    """One architecture: what jscale needs to know to store, move and run it."""

    name: str
    """What manifests call it."""

    architectures: tuple[str, ...]
    """What `architectures` in a Hugging Face config.json calls it."""

    @abc.abstractmethod
    def config_from_hf(self, hf: Mapping[str, Any]) -> ConfigT:
        """The config that a Hugging Face config.json describes.

        Raises:
          CheckpointError: it describes something that is not supported.
        """

    @abc.abstractmethod
    def config_from_dict(self, values: Mapping[str, Any]) -> ConfigT:
        """The config that its `to_dict` wrote.

        Raises:
          CheckpointError: it does not fit.
        """

    @abc.abstractmethod
    def abstract_leaves(
        self, config: ConfigT, kind: BlockKind, dtype: str
    ) -> Mapping[str, jax.ShapeDtypeStruct]:
        """Name, shape and dtype of each leaf of a block, in the order `apply` takes.

        `dtype` may be one that a block store holds, or uint16 for the bits of bf16.
        """

    @abc.abstractmethod
    def hf_sources(self, config: ConfigT, block: Block) -> Mapping[str, HfSource]:
        """For each tensor of a block, what it is called in Hugging Face files."""

    @abc.abstractmethod
    def flax_sources(self, config: ConfigT, block: Block) -> Mapping[str, FlaxSource]:
        """For each tensor of a block, where it is in the whole Flax model."""

    @abc.abstractmethod
    def abstract_model(
        self, config: ConfigT, dtype: str
    ) -> Mapping[tuple[str, ...], jax.ShapeDtypeStruct]:
        """Path and shape of each leaf of the whole Flax model, as Orbax saves it."""

    @abc.abstractmethod
    def kv_shape(
        self, config: ConfigT, num_layers: int, num_pages: int, page_tokens: int
    ) -> tuple[int, ...]:
        """Shape of the pool that holds the keys (or the values) of a block's layers."""

    def kv_values_per_token(self, config: ConfigT) -> int:
        """Numbers that the keys and values of one token are, over all layers."""
        return 2 * math.prod(self.kv_shape(config, config.num_layers, 1, 1))

    @abc.abstractmethod
    def apply(self, config: ConfigT, kind: BlockKind, compute_dtype: str) -> BlockApply:
        """The function that runs blocks of a kind on one tile of rows.

        Args:
          config: of the model.
          kind: of the block.
          compute_dtype: of products and activations; weights of another are cast
            layer by layer. Norms, rotations, softmax and logits are float32 always.
        """

    def layout(self, config: ConfigT, block: Block, dtype: str) -> BlockLayout:
        """Where each tensor of a block lies, on disk, on the wire and in the arena."""
        tensors, end = [], 0
        leaves = self.abstract_leaves(config, block.kind, dtype)
        for name, leaf in leaves.items():
            tensors.append(TensorLayout(name, dtype, tuple(leaf.shape), end))
            end = round_up(end + tensors[-1].size_bytes, ALIGNMENT_BYTES)
        return BlockLayout(block, tuple(tensors), end)

    def part_sizes(self, config: ConfigT, dtype: str) -> "PartSizes":
        """Bytes of the parts that a partition cuts between."""

        def size_bytes(has_embed: bool, has_head: bool) -> int:
            block = Block(0, 0, 1, has_embed, has_head)
            return self.layout(config, block, dtype).size_bytes

        layer = size_bytes(False, False)
        return PartSizes(
            embed_bytes=size_bytes(True, False) - layer,
            layer_bytes=layer,
            head_bytes=size_bytes(False, True) - layer,
        )


@dataclasses.dataclass(frozen=True)
class PartSizes:
    """Bytes of the embedding, of one layer, and of the final norm and head."""

    embed_bytes: int
    layer_bytes: int
    head_bytes: int
