"""Hugging Face directories: config.json, safetensors in one file or in shards."""

import pathlib
from collections.abc import Mapping, Sequence

from jscale.checkpoint.reader import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    CheckpointReader,
    Piece,
    read_json,
)
from jscale.checkpoint.safetensors_file import SafetensorsFile
from jscale.core.errors import CheckpointError
from jscale.core.partition import Block

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"

_DTYPES = {"F16": "float16", "BF16": "bfloat16"}
"""What else is kept as float32."""


def is_hugging_face(directory: pathlib.Path) -> bool:
    """Whether the directory looks like one of safetensors, whole or not."""
    return any(directory.glob("*.safetensors")) or (directory / INDEX_FILE).exists()


class HuggingFaceReader(CheckpointReader):
    """A directory as `save_pretrained` writes it; needs neither torch nor the network.

    Unchanged once made, so any thread may read it.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        """Reads the config and the tables of all shards.

        Raises:
          CheckpointError: a file is missing, truncated, or not what it should be.
        """
        super().__init__(directory)
        self._shards = [SafetensorsFile(path) for path in _shards(directory)]
        self._shard_of = {
            name: shard for shard in self._shards for name in shard.tensors
        }

    @property
    def dtype(self) -> str:
        """See `CheckpointReader`."""
        block = Block(0, 0, 1, has_embed=True, has_head=False)
        sources = self.family.hf_sources(self.config, block)
        (name,) = next(
            source.names for source in sources.values() if not source.stacked
        )
        return _DTYPES.get(self._shard(name).tensors[name].dtype, "float32")

    @property
    def files(self) -> Sequence[pathlib.Path]:
        """See `CheckpointReader`."""
        others = (CONFIG_FILE, INDEX_FILE, TOKENIZER_FILE)
        paths = [self.directory / name for name in others]
        paths += [shard.path for shard in self._shards]
        return [path for path in paths if path.is_file()]

    def pieces(self, block: Block) -> Mapping[str, Sequence[Piece]]:
        """See `CheckpointReader`."""
        sources = self.family.hf_sources(self.config, block)
        return {
            tensor: [self._piece(name, source.transpose) for name in source.names]
            for tensor, source in sources.items()
        }

    def _piece(self, name: str, transpose: bool) -> Piece:
        shard = self._shard(name)
        return Piece(
            name, shard.tensors[name].shape, transpose, lambda: shard.read(name)
        )

    def _shard(self, name: str) -> SafetensorsFile:
        if name not in self._shard_of:
            raise CheckpointError(
                f"{self.directory}: tensor {name} is in none of its "
                f"{len(self._shards)} safetensors files; fetch what is missing"
            )
        return self._shard_of[name]


def _shards(directory: pathlib.Path) -> Sequence[pathlib.Path]:
    """The safetensors files that hold the model: the index names them, if there is one.

    Raises:
      CheckpointError: the index cannot be read.
    """
    index = directory / INDEX_FILE
    if not index.exists():
        return [directory / SINGLE_FILE]
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict):
        raise CheckpointError(f"{index}: has no weight_map; fetch the file again")
    names = sorted({str(name) for name in places.values()})
    for name in names:
        if pathlib.PurePath(name).name != name:
            raise CheckpointError(f"{index}: {name!r} is not a file of this folder")
    return [directory / name for name in names]
