"""What a checkpoint is to the converter: pieces of tensors, by name."""

import abc
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from jscale.core.errors import CheckpointError
from jscale.core.layout import DTYPE_SIZE_BYTES, BlockLayout, TensorLayout
from jscale.core.partition import Block
from jscale.models import registry
from jscale.models.block import ModelFamily

NUMPY_DTYPES: Mapping[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
"""NumPy's type for each element type that a block may hold."""

assert set(NUMPY_DTYPES) == set(DTYPE_SIZE_BYTES)


@dataclasses.dataclass(frozen=True)
class Piece:
    """A tensor, or a part of one, that makes a block's tensor or a part of it.

    Attributes:
      name: what the checkpoint calls it.
      shape: as the checkpoint has it.
      transpose: whether the block has it the other way round.
      read: reads it; the array may be dropped or kept, but not changed.
    """

    name: str
    shape: tuple[int, ...]
    transpose: bool
    read: Callable[[], np.ndarray]


class CheckpointReader(abc.ABC):
    """A checkpoint on disk. Opening it reads names and shapes, but no weights."""

    def __init__(self, directory: pathlib.Path) -> None:
        """Reads the model's config.

        Raises:
          CheckpointError: there is none, or it describes what is not supported.
        """
        self.directory = directory
        path = directory / CONFIG_FILE
        hf_config = read_json(path)
        self.family: ModelFamily[Any]
        try:
            self.family, self.config = registry.config_from_hf(hf_config)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error

    @property
    @abc.abstractmethod
    def dtype(self) -> str:
        """Element type of the weights; where they differ, that of the embedding."""

    @property
    @abc.abstractmethod
    def files(self) -> Sequence[pathlib.Path]:
        """Every file that a conversion depends on, the tokenizer's included."""

    @abc.abstractmethod
    def pieces(self, block: Block) -> Mapping[str, Sequence[Piece]]:
        """For each tensor of a block, the pieces that make it up, in order.

        Raises:
          CheckpointError: the checkpoint has not got one of them.
        """

    @property
    def model_name(self) -> str:
        """What people call the model: its folder, also inside a Hugging Face cache."""
        path = self.directory.absolute()
        if path.parent.name == "snapshots":
            return path.parent.parent.name.split("--")[-1]
        return path.resolve().name

    @property
    def tokenizer_file(self) -> pathlib.Path | None:
        """The model's `tokenizer.json`, if it has one."""
        path = self.directory / TOKENIZER_FILE
        return path if path.is_file() else None

    def fingerprint(self) -> str:
        """Hexadecimal digest that changes when a file does: by name, size and time."""
        digest = hashlib.sha256()
        for path in sorted(self.files):
            status = path.stat()
            place = path.relative_to(self.directory)
            digest.update(f"{place} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()


TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "config.json"


def read_json(path: pathlib.Path) -> Mapping[str, Any]:
    """The JSON object in a file.

    Raises:
      CheckpointError: there is no such file, or it holds something else.
    """
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"{path}: {error.strerror or error}; give the folder of a whole model"
        ) from error
    except ValueError as error:
        raise CheckpointError(
            f"{path}: not JSON ({error}); fetch the file again"
        ) from error
    if not isinstance(values, dict):
        raise CheckpointError(
            f"{path}: holds a {type(values).__name__}, not an object; "
            "fetch the file again"
        )
    return values


def check_pieces(reader: CheckpointReader, layout: BlockLayout) -> None:
    """Makes sure that a block can be made, reading no weights.

    Raises:
      CheckpointError: a tensor is missing, or has another shape than its config says.
    """
    pieces = reader.pieces(layout.block)
    for tensor in layout.tensors:
        parts = pieces[tensor.name]
        for part in parts:
            expected = _shape_of_piece(part, tensor, len(parts))
            shape = part.shape[::-1] if part.transpose else part.shape
            if shape != expected:
                found = expected[::-1] if part.transpose else expected
                raise CheckpointError(
                    f"{reader.directory}: {part.name} has shape {part.shape}, "
                    f"config.json asks for {found}: are both of the same model?"
                )


def buffers(
    reader: CheckpointReader, layout: BlockLayout
) -> Iterator[Iterator[np.ndarray]]:
    """The bytes of each tensor of a block, piece by piece, as `write_block` takes them.

    At most one piece is in memory, besides its copy in the block's element type.
    """
    pieces = reader.pieces(layout.block)
    for tensor in layout.tensors:
        yield (_bytes_of(part, tensor.dtype) for part in pieces[tensor.name])


def _shape_of_piece(
    piece: Piece, tensor: TensorLayout, num_pieces: int
) -> tuple[int, ...]:
    """What a piece must look like in the block: all of the tensor, or one of its rows.

    Layers are stacked along the first axis, so a row is what one layer has.
    """
    is_row = len(piece.shape) < len(tensor.shape) and num_pieces == tensor.shape[0]
    return tensor.shape[1:] if is_row else tensor.shape


def _bytes_of(piece: Piece, dtype: str) -> np.ndarray:
    values = piece.read().astype(NUMPY_DTYPES[dtype], copy=False)
    values = _transposed(values) if piece.transpose else np.ascontiguousarray(values)
    return values.reshape(-1).view(np.uint8)


def _transposed(values: np.ndarray) -> np.ndarray:
    """A transposed copy, made in strips that fit the CPU's cache: 7 times as fast."""
    rows = 16
    result = np.empty(values.shape[::-1], values.dtype)
    for start in range(0, values.shape[0], rows):
        result[:, start : start + rows] = values[start : start + rows].T
    return result
