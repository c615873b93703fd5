"""Llama as a family: its tensors' names and shapes, and its blocks as functions."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Bool

from jscale.core.partition import Block, BlockKind
from jscale.models.block import BlockApply, FlaxSource, HfSource, ModelFamily
from jscale.models.llama import KvPools, LlamaBlock
from jscale.models.llama_config import LlamaConfig

_HF_LAYER_NAMES: Mapping[str, str] = {
    "layers.attention_norm.scale": "input_layernorm",
    "layers.attention.query": "self_attn.q_proj",
    "layers.attention.key": "self_attn.k_proj",
    "layers.attention.value": "self_attn.v_proj",
    "layers.attention.output": "self_attn.o_proj",
    "layers.mlp_norm.scale": "post_attention_layernorm",
    "layers.mlp.gate": "mlp.gate_proj",
    "layers.mlp.up": "mlp.up_proj",
    "layers.mlp.down": "mlp.down_proj",
}
_EMBED = "embed.table"
_HEAD = "head.kernel"
_HF_EMBED = "model.embed_tokens.weight"
_HF_HEAD = "lm_head.weight"
_HF_NORM = "model.norm.weight"


class LlamaFamily(ModelFamily[LlamaConfig]):
    """Llama 2, Llama 3 and all that `LlamaForCausalLM` of Hugging Face describes."""

    name = "llama"
    architectures = ("LlamaForCausalLM",)

    def config_from_hf(self, hf: Mapping[str, Any]) -> LlamaConfig:
        """See `ModelFamily`."""
        return LlamaConfig.from_hf(hf)

    def config_from_dict(self, values: Mapping[str, Any]) -> LlamaConfig:
        """See `ModelFamily`."""
        return LlamaConfig.from_dict(values)

    def abstract_leaves(
        self, config: LlamaConfig, kind: BlockKind, dtype: str
    ) -> Mapping[str, jax.ShapeDtypeStruct]:
        """See `ModelFamily`."""
        _, state = _abstract_block(config, kind)
        return {".".join(path): leaf for path, leaf in _flat(state, dtype).items()}

    def hf_sources(self, config: LlamaConfig, block: Block) -> Mapping[str, HfSource]:
        """See `ModelFamily`."""
        head = _HF_EMBED if config.tie_embeddings else _HF_HEAD
        sources = {
            name: HfSource(
                names=tuple(
                    f"model.layers.{block.first_layer + index}.{hf_name}.weight"
                    for index in range(block.num_layers)
                ),
                stacked=True,
                transpose=not name.endswith("scale"),
            )
            for name, hf_name in _HF_LAYER_NAMES.items()
        }
        if block.has_embed:
            sources[_EMBED] = HfSource((_HF_EMBED,), stacked=False, transpose=False)
        if block.has_head:
            sources["head.norm.scale"] = HfSource(
                (_HF_NORM,), stacked=False, transpose=False
            )
            sources[_HEAD] = HfSource((head,), stacked=False, transpose=True)
        return sources

    def flax_sources(
        self, config: LlamaConfig, block: Block
    ) -> Mapping[str, FlaxSource]:
        """See `ModelFamily`."""
        layers = range(block.first_layer, block.first_layer + block.num_layers)
        sources = {}
        for name in self.hf_sources(config, block):
            tied = name == _HEAD and config.tie_embeddings
            sources[name] = FlaxSource(
                path=tuple((_EMBED if tied else name).split(".")),
                layers=layers if name.startswith("layers.") else None,
                transpose=tied,
            )
        return sources

    def abstract_model(
        self, config: LlamaConfig, dtype: str
    ) -> Mapping[tuple[str, ...], jax.ShapeDtypeStruct]:
        """See `ModelFamily`."""
        kind = BlockKind(config.num_layers, has_embed=True, has_head=True)
        has_kernel = not config.tie_embeddings
        return _flat(_abstract_block(config, kind, has_kernel)[1], dtype)

    def kv_shape(
        self, config: LlamaConfig, num_layers: int, num_pages: int, page_tokens: int
    ) -> tuple[int, ...]:
        """See `ModelFamily`."""
        return num_layers, num_pages, page_tokens, config.num_kv_heads, config.head_dim

    def apply(
        self, config: LlamaConfig, kind: BlockKind, compute_dtype: str
    ) -> BlockApply:
        """See `ModelFamily`."""
        graph, state = _abstract_block(config, kind)
        tree = jax.tree.structure(state)

        def apply_block(
            leaves: tuple[Array, ...],
            k_pool: Array,
            v_pool: Array,
            x: Array,
            positions: Array,
            page_table: Array,
            wants_logits: Bool[Array, ""] | None = None,
        ) -> tuple[Array, Array, Array]:
            block: LlamaBlock = nnx.merge(graph, jax.tree.unflatten(tree, leaves))
            y, pools = block(
                x,
                KvPools(k_pool, v_pool),
                positions,
                page_table,
                compute_dtype=compute_dtype,
                wants_logits=wants_logits,
            )
            return y, pools.keys, pools.values

        return apply_block


LLAMA = LlamaFamily()


@functools.lru_cache(maxsize=64)
def _abstract_block(
    config: LlamaConfig, kind: BlockKind, has_kernel: bool = True
) -> tuple[Any, Any]:
    """Graph and state of a block, with shapes in place of arrays: costs no memory."""
    block = nnx.eval_shape(
        lambda: LlamaBlock(config, kind, nnx.Rngs(0), has_kernel=has_kernel)
    )
    graph, state = nnx.split(block)
    return graph, state


def _flat(state: Any, dtype: str) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    """Paths and shapes of a state's leaves, in the order in which JAX flattens it."""
    leaves, _ = jax.tree.flatten_with_path(nnx.to_pure_dict(state))
    shapes = {}
    for path, leaf in leaves:
        shape = jax.ShapeDtypeStruct(leaf.shape, dtype)  # type: ignore[no-untyped-call]
        shapes[tuple(str(key.key) for key in path)] = shape
    return shapes
