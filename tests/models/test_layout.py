"""Blocks: which tensors they have, where these lie and what they are made of."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jscale.core.layout import ALIGNMENT_BYTES
from jscale.core.partition import Block, BlockKind, Partition
from jscale.models.llama import LlamaBlock
from jscale.models.llama_config import LlamaConfig
from jscale.models.llama_family import LLAMA
from jscale.models.testing import TINY_CONFIG, leaves_of, random_tensors

TIED_CONFIG = dataclasses.replace(TINY_CONFIG, tie_embeddings=True)
CONFIGS = pytest.mark.parametrize(
    "config", [TINY_CONFIG, TIED_CONFIG], ids=["untied", "tied"]
)
CUTS = ((4,), (2, 2), (1, 2, 1))


def blocks():
    return [block for cut in CUTS for block in Partition.of_layers(cut).blocks]


@CONFIGS
def test_every_tensor_has_a_source_of_each_kind(config):
    for block in blocks():
        names = [
            tensor.name for tensor in LLAMA.layout(config, block, "bfloat16").tensors
        ]
        assert sorted(names) == sorted(LLAMA.hf_sources(config, block))
        assert sorted(names) == sorted(LLAMA.flax_sources(config, block))


@CONFIGS
def test_the_hf_sources_of_a_partition_are_the_checkpoint(config):
    for cut in CUTS:
        found = [
            name
            for block in Partition.of_layers(cut).blocks
            for source in LLAMA.hf_sources(config, block).values()
            for name in source.names
        ]
        assert set(found) == set(random_tensors(config))
        assert len(found) == len(set(found)) + config.tie_embeddings


def test_tensors_follow_one_another_aligned_in_the_order_of_the_leaves():
    for block in blocks():
        layout = LLAMA.layout(TINY_CONFIG, block, "bfloat16")
        leaves = leaves_of(TINY_CONFIG, block, random_tensors(TINY_CONFIG), "bfloat16")
        for tensor, leaf in zip(layout.tensors, leaves, strict=True):
            assert (tensor.shape, tensor.dtype) == (leaf.shape, leaf.dtype.name)
            assert tensor.offset_bytes % ALIGNMENT_BYTES == 0
        padding = layout.size_bytes - sum(leaf.nbytes for leaf in leaves)
        assert 0 <= padding < ALIGNMENT_BYTES * len(leaves)


def test_blocks_of_one_kind_have_one_layout():
    first, second = (Block(i, 2 * i, 2, False, False) for i in (1, 2))
    layouts = [LLAMA.layout(TINY_CONFIG, each, "float32") for each in (first, second)]
    assert layouts[0].tensors == layouts[1].tensors
    sources = [LLAMA.hf_sources(TINY_CONFIG, each) for each in (first, second)]
    assert sources[0] != sources[1]


def test_parts_add_up_to_the_blocks():
    sizes = LLAMA.part_sizes(TINY_CONFIG, "float32")
    for block in blocks():
        expected = (
            block.has_embed * sizes.embed_bytes
            + block.num_layers * sizes.layer_bytes
            + block.has_head * sizes.head_bytes
        )
        size = LLAMA.layout(TINY_CONFIG, block, "float32").size_bytes
        assert abs(size - expected) <= 9 * block.num_layers * ALIGNMENT_BYTES


def test_a_model_of_70_billion_is_laid_out_without_memory():
    config = LlamaConfig(128256, 8192, 28672, 80, 64, 8, 128, 131072)
    partition = Partition.of_layers((5,) * 16)
    total = sum(
        LLAMA.layout(config, block, "bfloat16").size_bytes for block in partition.blocks
    )
    assert total == pytest.approx(2 * 70_553_706_496, rel=1e-6)


@CONFIGS
def test_the_order_of_the_leaves_is_that_of_the_flax_state(config):
    """`apply` unflattens leaves in the order in which layouts list them."""
    for kind in (block.kind for block in blocks()):
        block = nnx.eval_shape(lambda kind=kind: LlamaBlock(config, kind, nnx.Rngs(0)))
        leaves = jax.tree.leaves(nnx.state(block))
        expected = LLAMA.abstract_leaves(config, kind, "float32").values()
        assert [leaf.shape for leaf in leaves] == [leaf.shape for leaf in expected]


@CONFIGS
def test_the_whole_flax_model_holds_what_its_blocks_need(config):
    kind = BlockKind(config.num_layers, has_embed=True, has_head=True)
    model = LlamaBlock(config, kind, nnx.Rngs(0), has_kernel=not config.tie_embeddings)
    state = nnx.to_pure_dict(nnx.state(model))
    for path, leaf in LLAMA.abstract_model(config, "float32").items():
        assert _at(state, path).shape == leaf.shape
    tensors = _as_hf(config, state)
    for block in blocks():
        sources = LLAMA.flax_sources(config, block)
        names = LLAMA.abstract_leaves(config, block.kind, "float32")
        expected = leaves_of(config, block, tensors)
        for name, leaf in zip(names, expected, strict=True):
            source = sources[name]
            found = _at(state, source.path)
            if source.layers is not None:
                found = found[source.layers.start : source.layers.stop]
            np.testing.assert_array_equal(found.T if source.transpose else found, leaf)


def test_new_layers_of_the_flax_model_differ():
    kind = BlockKind(2, has_embed=False, has_head=False)
    gates = LlamaBlock(TINY_CONFIG, kind, nnx.Rngs(0)).layers.mlp.gate[...]
    assert not jnp.array_equal(gates[0], gates[1])


def _at(state, path):
    for key in path:
        state = state[key]
    return state


def _as_hf(config, state):
    """The tensors of the whole Flax model under their Hugging Face names."""
    whole = Block(0, 0, config.num_layers, has_embed=True, has_head=True)
    tensors = {}
    for name, source in LLAMA.hf_sources(config, whole).items():
        if name == "head.kernel" and config.tie_embeddings:
            continue
        leaf = np.asarray(_at(state, name.split(".")))
        for index, hf_name in enumerate(source.names):
            part = leaf[index] if source.stacked else leaf
            tensors[hf_name] = part.T if source.transpose else part
    return tensors
