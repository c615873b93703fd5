"""Where each tensor of a block lies: the same on disk, on the wire and in the arena."""

import dataclasses

from jscale.core.partition import Block

ALIGNMENT_BYTES = 256
"""Tensors and blocks start at multiples of this: XLA asks for 64, GPUs like 256."""

DTYPE_SIZE_BYTES = {"bfloat16": 2, "float32": 4, "float16": 2}
"""Element types that a block may hold."""


@dataclasses.dataclass(frozen=True)
class TensorLayout:
    """One tensor of a block: C-contiguous, little-endian."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset_bytes: int

    def __post_init__(self) -> None:
        assert self.dtype in DTYPE_SIZE_BYTES, self.dtype
        assert self.offset_bytes % ALIGNMENT_BYTES == 0, self

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensor, without padding."""
        size = DTYPE_SIZE_BYTES[self.dtype]
        for extent in self.shape:
            size *= extent
        return size


@dataclasses.dataclass(frozen=True)
class BlockLayout:
    """The byte range of one block: its tensors in the order the model takes them."""

    block: Block
    tensors: tuple[TensorLayout, ...]
    size_bytes: int

    def __post_init__(self) -> None:
        end = 0
        for tensor in self.tensors:
            assert tensor.offset_bytes >= end, tensor
            end = tensor.offset_bytes + tensor.size_bytes
        assert self.size_bytes >= end, self
        assert self.size_bytes % ALIGNMENT_BYTES == 0, self
