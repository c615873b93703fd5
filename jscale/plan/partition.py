"""The cut of a model into blocks of about the same size."""

from collections.abc import Iterator

from jscale.core.errors import ConfigError
from jscale.core.partition import Partition

NUM_BLOCKS_MAX_BY_DEFAULT = 8
"""A target helps after 1/8 of the model, and a pipeline has few hops; λScale (arXiv
2502.09922) settles on 8 execution blocks for models of 13 to 138 GB."""


def cut(
    num_layers: int,
    *,
    layer_bytes: int,
    embed_bytes: int,
    head_bytes: int,
    num_blocks: int | None = None,
) -> Partition:
    """The partition whose largest block has the fewest bytes.

    Among equals, the one with the fewest block kinds (each kind is an executable to
    compile and ship), then the one with the largest smallest block. The embedding goes
    with the first block and the head with the last: with both as large as 2 layers, 12
    layers in 4 blocks become 2 + 4 + 4 + 2. A few ms for 126 layers.

    Args:
      num_layers: decoder layers of the model, all of one size.
      layer_bytes: parameters of one layer.
      embed_bytes: parameters that block 0 holds besides its layers.
      head_bytes: parameters that the last block holds besides its layers.
      num_blocks: how many blocks, 1 to `num_layers`; 8, or one a layer, when not given.

    Raises:
      ConfigError: there are no layers, or fewer than blocks asked for.
    """
    if num_layers < 1:
        raise ConfigError(
            f"model of {num_layers} layers cannot be cut: give at least 1"
        )
    if num_blocks is None:
        num_blocks = min(num_layers, NUM_BLOCKS_MAX_BY_DEFAULT)
    if not 1 <= num_blocks <= num_layers:
        raise ConfigError(
            f"model of {num_layers} layers cannot be cut into {num_blocks} blocks: "
            f"choose 1 to {num_layers}"
        )
    if num_blocks == 1:
        return Partition.of_layers((num_layers,))

    def cost(ends: tuple[int, int]) -> tuple[int, int, int]:
        first, last = ends
        middle = _spread(num_layers - first - last, num_blocks - 2)
        sizes = [first * layer_bytes + embed_bytes, last * layer_bytes + head_bytes]
        sizes += [middle[0] * layer_bytes, middle[-1] * layer_bytes] if middle else []
        return max(sizes), len(set(middle)), -min(sizes)

    first, last = min(_ends(num_layers, num_blocks), key=cost)
    middle = _spread(num_layers - first - last, num_blocks - 2)
    return Partition.of_layers((first, *middle, last))


def _ends(num_layers: int, num_blocks: int) -> Iterator[tuple[int, int]]:
    """Layers that the first and the last of two or more blocks may have."""
    num_ends = num_layers - (num_blocks - 2)
    for first in range(1, num_ends):
        if num_blocks == 2:
            yield first, num_layers - first
        else:
            yield from ((first, last) for last in range(1, num_ends - first + 1))


def _spread(num_layers: int, num_blocks: int) -> tuple[int, ...]:
    """Layers of each block between the ends: even, the larger ones first."""
    if num_blocks == 0:
        return ()
    each, extra = divmod(num_layers, num_blocks)
    return (each + 1,) * extra + (each,) * (num_blocks - extra)
