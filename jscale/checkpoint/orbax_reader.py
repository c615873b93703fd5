"""Orbax checkpoints of the whole Flax model.

A directory with the `config.json` (and, if wanted, `tokenizer.json`) of Hugging Face
and, in itself or in a folder, what Orbax wrote when it was given the `nnx.State` of the
model, or its pure dict: `StandardCheckpointer().save(directory / "params", state)`. The
tree is that of `ModelFamily.abstract_model`: the layers are stacked in one leaf.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jscale.checkpoint.reader import (
    CONFIG_FILE,
    NUMPY_DTYPES,
    TOKENIZER_FILE,
    CheckpointReader,
    Piece,
)
from jscale.core.errors import CheckpointError
from jscale.core.partition import Block

_TREE_FILE = "_METADATA"
"""What every Orbax checkpoint of a tree has."""

_FOLDERS = ("", "*/", "*/*/")
"""Where that may be: Orbax's own interfaces add up to two folders."""


def is_orbax(directory: pathlib.Path) -> bool:
    """Whether there is an Orbax checkpoint of a tree in the directory."""
    return bool(_trees(directory))


@dataclasses.dataclass(frozen=True)
class StoredLeaf:
    """One leaf of the tree."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class OrbaxReader(CheckpointReader):
    """Reads slices of leaves: a block's layers, without the others, where chunks allow.

    Unchanged once made, so any thread may read it.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        """Reads the config and the tree.

        Raises:
          CheckpointError: one of them is missing, or there are several trees.
        """
        super().__init__(directory)
        trees = _trees(directory)
        if len(trees) != 1:
            names = ", ".join(str(path.parent) for path in trees)
            raise CheckpointError(
                f"{directory}: {len(trees)} Orbax checkpoints ({names}): keep one, "
                "or put config.json beside the one to be read"
            )
        self._tree = trees[0].parent.absolute()
        self._leaves, self._driver = _read_tree(self._tree)

    @property
    def dtype(self) -> str:
        """See `CheckpointReader`."""
        block = Block(0, 0, 1, has_embed=True, has_head=False)
        sources = self.family.flax_sources(self.config, block)
        path = next(source.path for source in sources.values() if source.layers is None)
        return self._leaf(path).dtype

    @property
    def files(self) -> Sequence[pathlib.Path]:
        """See `CheckpointReader`."""
        others = [self.directory / name for name in (CONFIG_FILE, TOKENIZER_FILE)]
        paths = [*others, *self._tree.rglob("*")]
        return [path for path in paths if path.is_file()]

    def pieces(self, block: Block) -> Mapping[str, Sequence[Piece]]:
        """See `CheckpointReader`."""
        sources = self.family.flax_sources(self.config, block)
        return {
            tensor: [self._piece(source.path, source.layers, source.transpose)]
            for tensor, source in sources.items()
        }

    def _piece(
        self, path: tuple[str, ...], layers: range | None, transpose: bool
    ) -> Piece:
        leaf = self._leaf(path)
        if layers is None:
            return Piece(leaf.name, leaf.shape, transpose, lambda: self._read(leaf))
        num_held = len(range(leaf.shape[0])[layers.start : layers.stop])
        return Piece(
            f"{leaf.name}[{layers.start}:{layers.stop}]",
            (num_held, *leaf.shape[1:]),
            transpose,
            lambda: self._read(leaf, slice(layers.start, layers.stop)),
        )

    def _leaf(self, path: tuple[str, ...]) -> StoredLeaf:
        if path not in self._leaves:
            raise CheckpointError(
                f"{self._tree}: there is no leaf {'.'.join(path)}: was the whole model "
                f"of family {self.family.name} saved, with its layers stacked?"
            )
        return self._leaves[path]

    def _read(self, leaf: StoredLeaf, where: slice = slice(None)) -> np.ndarray:
        import tensorstore

        kvstore: dict[str, Any] = {
            "driver": "file",
            "path": f"{self._tree}/{leaf.name}/",
        }
        if (self._tree / "manifest.ocdbt").exists():
            kvstore = {
                "driver": "ocdbt",
                "base": {"driver": "file", "path": f"{self._tree}/"},
                "path": f"{leaf.name}/",
            }
        spec = {"driver": self._driver, "kvstore": kvstore}
        try:
            stored = tensorstore.open(spec, open=True, read=True).result()
            return np.asarray(stored[where].read().result())
        except (ValueError, OSError) as error:
            raise CheckpointError(
                f"{self._tree}: {leaf.name} cannot be read ({_brief(error)}); "
                "fetch or save the checkpoint again"
            ) from error


def _brief(error: Exception) -> str:
    """The message without the pages of settings that TensorStore adds."""
    return str(error).split(" [tensorstore_spec", maxsplit=1)[0]


def _trees(directory: pathlib.Path) -> Sequence[pathlib.Path]:
    found = {path for each in _FOLDERS for path in directory.glob(each + _TREE_FILE)}
    return sorted(found)


def _read_tree(
    tree: pathlib.Path,
) -> tuple[Mapping[tuple[str, ...], StoredLeaf], str]:
    """Every leaf by its path in the model, and TensorStore's name for the format.

    Orbax is imported here only: that takes seconds, and other models do not need it.

    Raises:
      CheckpointError: Orbax cannot read what is there.
    """
    import jax
    from orbax import checkpoint

    try:
        metadata = checkpoint.PyTreeCheckpointHandler().metadata(tree)
        stored = jax.tree.leaves(metadata.tree)
        # An nnx.State has each array under its Variable's `value`, a pure dict has not.
        is_state = all(leaf.name.endswith(".value") for leaf in stored)
        leaves = {
            tuple(leaf.name.split("."))[: -1 if is_state else None]: StoredLeaf(
                leaf.name, tuple(leaf.shape), np.dtype(leaf.dtype).name
            )
            for leaf in stored
        }
        driver = "zarr3" if metadata.use_zarr3 else "zarr"
    except (ValueError, OSError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{tree}: not a tree of arrays that Orbax can read ({_brief(error)}); "
            "save the model's nnx.State with orbax-checkpoint's StandardCheckpointer"
        ) from error
    for leaf in leaves.values():
        if leaf.dtype not in NUMPY_DTYPES:
            raise CheckpointError(
                f"{tree}: {leaf.name} has element type {leaf.dtype}, "
                f"supported are {', '.join(NUMPY_DTYPES)}"
            )
    return leaves, driver
