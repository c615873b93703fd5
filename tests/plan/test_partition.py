"""The cut against every possible cut of small models."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jscale.core.errors import ConfigError
from jscale.plan.partition import cut


def layers_of(partition):
    return tuple(block.num_layers for block in partition.blocks)


def largest(layers, layer_bytes, embed_bytes, head_bytes):
    sizes = [num * layer_bytes for num in layers]
    sizes[0] += embed_bytes
    sizes[-1] += head_bytes
    return max(sizes)


def compositions(total, parts):
    for bars in itertools.combinations(range(1, total), parts - 1):
        ends = (0, *bars, total)
        yield tuple(b - a for a, b in itertools.pairwise(ends))


def test_no_cut_of_a_small_model_has_a_smaller_largest_block():
    for num_layers in range(1, 10):
        for num_blocks in range(1, num_layers + 1):
            for embed, head in ((0, 0), (7, 7), (30, 0), (0, 25), (13, 4)):
                found = cut(
                    num_layers,
                    layer_bytes=10,
                    embed_bytes=embed,
                    head_bytes=head,
                    num_blocks=num_blocks,
                )
                assert found.num_blocks == num_blocks
                assert found.num_layers == num_layers
                best = min(
                    largest(layers, 10, embed, head)
                    for layers in compositions(num_layers, num_blocks)
                )
                assert largest(layers_of(found), 10, embed, head) == best


def test_the_docstring_example_holds():
    found = cut(12, layer_bytes=10, embed_bytes=20, head_bytes=20, num_blocks=4)
    assert layers_of(found) == (2, 4, 4, 2)


def test_llama_2_7b_is_cut_as_in_the_paper():
    found = cut(
        32, layer_bytes=404_766_720, embed_bytes=262_144_000, head_bytes=262_152_192
    )
    assert layers_of(found) == (4,) * 8


def test_a_heavy_embedding_leaves_its_block_fewer_layers():
    found = cut(32, layer_bytes=436, embed_bytes=1050, head_bytes=1050, num_blocks=8)
    layers = layers_of(found)
    assert layers[0] < layers[1]
    assert layers[-1] < layers[1]
    assert len(found.kinds) == 3


def test_a_model_of_few_layers_has_a_block_a_layer_by_default():
    found = cut(5, layer_bytes=1, embed_bytes=1, head_bytes=1)
    assert layers_of(found) == (1, 1, 1, 1, 1)


@given(st.integers(1, 126), st.integers(1, 126), *[st.integers(0, 10**9)] * 3)
@settings(deadline=None)
def test_any_model_is_cut_into_as_many_blocks_as_asked_for(
    num_layers, num_blocks, layer_bytes, embed_bytes, head_bytes
):
    num_blocks = min(num_blocks, num_layers)
    found = cut(
        num_layers,
        layer_bytes=layer_bytes,
        embed_bytes=embed_bytes,
        head_bytes=head_bytes,
        num_blocks=num_blocks,
    )
    assert found.num_layers == num_layers
    assert found.num_blocks == num_blocks


@pytest.mark.parametrize("num_blocks", [-1, 0, 6])
def test_more_blocks_than_layers_is_refused_with_the_range(num_blocks):
    with pytest.raises(ConfigError, match=f"5 layers .* {num_blocks} blocks.* 1 to 5"):
        cut(5, layer_bytes=1, embed_bytes=1, head_bytes=1, num_blocks=num_blocks)
