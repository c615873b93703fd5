"""The cut of a model into blocks."""

import dataclasses


@dataclasses.dataclass(frozen=True, order=True)
class BlockKind:
    """What two blocks must share to be run by the same executable."""

    num_layers: int
    has_embed: bool
    has_head: bool

    @property
    def name(self) -> str:
        """Short, unique and usable in a file name: `embed+4`, `4`, `4+head`."""
        head = "+head" if self.has_head else ""
        return f"{'embed+' if self.has_embed else ''}{self.num_layers}{head}"


@dataclasses.dataclass(frozen=True)
class Block:
    """A contiguous run of layers: the unit of residency and of execution.

    The embedding belongs to block 0, the final norm and head to the last block.
    """

    index: int
    first_layer: int
    num_layers: int
    has_embed: bool
    has_head: bool

    @property
    def kind(self) -> BlockKind:
        """What decides which executable runs the block."""
        return BlockKind(self.num_layers, self.has_embed, self.has_head)


@dataclasses.dataclass(frozen=True)
class Partition:
    """Blocks in order, together covering every layer exactly once."""

    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        assert self.blocks, "a partition has at least one block"
        next_layer = 0
        last = len(self.blocks) - 1
        for index, block in enumerate(self.blocks):
            assert block.index == index, block
            assert block.first_layer == next_layer, block
            assert block.num_layers >= 1, block
            assert block.has_embed == (index == 0), block
            assert block.has_head == (index == last), block
            next_layer += block.num_layers

    @property
    def num_blocks(self) -> int:
        """How many blocks there are."""
        return len(self.blocks)

    @property
    def num_layers(self) -> int:
        """How many layers the model has."""
        return sum(block.num_layers for block in self.blocks)

    @property
    def kinds(self) -> tuple[BlockKind, ...]:
        """Every kind once, in a fixed order."""
        return tuple(sorted({block.kind for block in self.blocks}))

    @staticmethod
    def of_layers(layers_per_block: tuple[int, ...]) -> "Partition":
        """The partition whose i-th block has `layers_per_block[i]` layers."""
        blocks, first_layer = [], 0
        for index, num_layers in enumerate(layers_per_block):
            blocks.append(
                Block(
                    index=index,
                    first_layer=first_layer,
                    num_layers=num_layers,
                    has_embed=index == 0,
                    has_head=index == len(layers_per_block) - 1,
                )
            )
            first_layer += num_layers
        return Partition(tuple(blocks))
