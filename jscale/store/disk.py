"""Blocks on disk: a file looks as its block does in the arena, so loading is a read."""

import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from jscale.core.errors import CheckpointError
from jscale.core.layout import BlockLayout
from jscale.core.partition import Block
from jscale.core.units import MIB
from jscale.store.digest import BlockDigest
from jscale.store.manifest import MANIFEST_FILE, BlockEntry, Manifest

_HASH_AT_ONCE_BYTES = 4 * MIB
"""Large enough that hashing runs without the interpreter lock nearly all the time."""


BLOCK_FILES = "block-*.bin*"
"""Pattern of the names of block files, those of unfinished ones included."""


def block_file(block: Block) -> str:
    """Name of the file that holds the block."""
    return f"block-{block.index:05d}.bin"


def is_intact(directory: os.PathLike[str] | str, entry: BlockEntry) -> bool:
    """Whether the block's file is there with the right size and digest."""
    path = pathlib.Path(directory) / entry.file
    try:
        if path.stat().st_size != entry.layout.size_bytes:
            return False
        digest = BlockDigest()
        with path.open("rb", buffering=0) as file:
            while data := file.read(_HASH_AT_ONCE_BYTES):
                digest.update(data)
    except OSError:
        return False
    return digest.hexdigest() == entry.digest


def write_block(
    directory: os.PathLike[str] | str,
    layout: BlockLayout,
    tensors: Iterable[Iterable[Any]],
) -> BlockEntry:
    """Writes a block and returns its entry; the file appears whole or not at all.

    `tensors` gives, for each tensor of the layout in its order, the buffers that make
    up its bytes one after the other. Each is taken when its turn comes and dropped
    before the next: memory holds one buffer, however large the block.

    Raises:
      CheckpointError: the disk is full or cannot be written.
    """
    path = pathlib.Path(directory) / block_file(layout.block)
    digest = BlockDigest()

    def hashed() -> Iterator[memoryview]:
        for data in _laid_out(layout, tensors):
            digest.update(data)
            yield data

    write_atomically(path, hashed())
    return BlockEntry(layout=layout, digest=digest.hexdigest(), file=path.name)


def write_manifest(directory: os.PathLike[str] | str, manifest: Manifest) -> None:
    """Writes the manifest, which makes the directory a block store: do it last.

    Raises:
      CheckpointError: the disk is full or cannot be written.
    """
    path = pathlib.Path(directory) / MANIFEST_FILE
    write_atomically(path, [memoryview(manifest.to_bytes())])


def write_atomically(path: pathlib.Path, parts: Iterable[memoryview]) -> None:
    """Writes a file that appears under its name whole and on disk, or not at all.

    Raises:
      CheckpointError: the disk is full or cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb", buffering=0) as file:
            for part in parts:
                done = 0
                while done < part.nbytes:
                    done += file.write(part[done:])
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "free space or choose another target, then run it again"
        ) from error


RECOVERY = "convert the model again, or copy the file from where it is whole"


def _laid_out(
    layout: BlockLayout, tensors: Iterable[Iterable[Any]]
) -> Iterator[memoryview]:
    """The bytes of a block from first to last, padding included."""
    position = 0
    for tensor, buffers in zip(layout.tensors, tensors, strict=True):
        yield memoryview(bytes(tensor.offset_bytes - position))
        position = tensor.offset_bytes
        for buffer in buffers:
            data = memoryview(buffer).cast("B")
            yield data
            position += data.nbytes
        end = tensor.offset_bytes + tensor.size_bytes
        assert position == end, f"{tensor.name}: {position} is not {end}"
    yield memoryview(bytes(layout.size_bytes - position))


def _sync_directory(path: pathlib.Path) -> None:
    """Makes a rename in the directory outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
