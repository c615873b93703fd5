"""Tensors of a block lie one after the other, aligned, inside the block."""

import pytest

from jscale.core.layout import BlockLayout, TensorLayout
from jscale.core.partition import Partition

(BLOCK,) = Partition.of_layers((1,)).blocks


def test_the_size_of_a_tensor_is_that_of_its_elements():
    assert TensorLayout("w", "bfloat16", (3, 5), 0).size_bytes == 30
    assert TensorLayout("w", "float32", (3, 5), 256).size_bytes == 60
    assert TensorLayout("scalar", "float16", (), 0).size_bytes == 2


@pytest.mark.parametrize(("dtype", "offset_bytes"), [("int3", 0), ("float32", 64)])
def test_unknown_types_and_crooked_offsets_are_our_bug(dtype, offset_bytes):
    with pytest.raises(AssertionError):
        TensorLayout("w", dtype, (1,), offset_bytes)


def test_tensors_may_touch_but_not_overlap():
    fits = TensorLayout("a", "float32", (64,), 0)
    too_long = TensorLayout("a", "float32", (65,), 0)
    after = TensorLayout("b", "float32", (1,), 256)
    BlockLayout(BLOCK, (fits, after), 512)
    with pytest.raises(AssertionError):
        BlockLayout(BLOCK, (too_long, after), 512)


@pytest.mark.parametrize("size_bytes", [256, 300])
def test_a_block_holds_its_tensors_and_ends_aligned(size_bytes):
    with pytest.raises(AssertionError):
        BlockLayout(BLOCK, (TensorLayout("a", "float32", (65,), 0),), size_bytes)
