"""Blocks in order cover every layer; blocks of one kind share an executable."""

import pytest

from jscale.core.partition import Block, BlockKind, Partition


def test_layers_per_block_make_a_partition_with_its_ends_marked():
    partition = Partition.of_layers((2, 3, 1))
    assert partition.num_blocks == 3
    assert partition.num_layers == 6
    assert [block.first_layer for block in partition.blocks] == [0, 2, 5]
    assert [block.has_embed for block in partition.blocks] == [True, False, False]
    assert [block.has_head for block in partition.blocks] == [False, False, True]


def test_a_single_block_is_the_whole_model():
    (block,) = Partition.of_layers((4,)).blocks
    assert block == Block(0, 0, 4, has_embed=True, has_head=True)
    assert block.kind.name == "embed+4+head"


def test_blocks_of_one_kind_are_counted_once():
    partition = Partition.of_layers((4, 4, 4, 4))
    assert len(partition.kinds) == 3
    assert {kind.name for kind in partition.kinds} == {"embed+4", "4", "4+head"}
    assert partition.kinds == Partition.of_layers((4, 4, 4)).kinds


def test_kind_names_differ_when_kinds_do():
    kinds = {
        BlockKind(layers, embed, head)
        for layers in range(1, 30)
        for embed in (False, True)
        for head in (False, True)
    }
    assert len({kind.name for kind in kinds}) == len(kinds)


@pytest.mark.parametrize(
    "blocks",
    [
        (),
        (Block(1, 0, 2, True, True),),
        (Block(0, 1, 2, True, True),),
        (Block(0, 0, 0, True, True),),
        (Block(0, 0, 2, True, False),),
        (Block(0, 0, 2, False, True),),
        (Block(0, 0, 2, True, False), Block(1, 3, 2, False, True)),
        (Block(0, 0, 2, True, True), Block(1, 2, 2, False, True)),
    ],
    ids=["none", "index", "start", "empty", "no head", "no embed", "gap", "two heads"],
)
def test_blocks_that_do_not_cover_the_layers_are_our_bug(blocks):
    with pytest.raises(AssertionError):
        Partition(blocks)
