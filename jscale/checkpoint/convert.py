"""From a checkpoint to a block store: block by block, resumable, atomic."""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
import numpy as np
from absl import logging

from jscale.checkpoint.hugging_face import HuggingFaceReader, is_hugging_face
from jscale.checkpoint.orbax_reader import OrbaxReader, is_orbax
from jscale.checkpoint.reader import (
    NUMPY_DTYPES,
    TOKENIZER_FILE,
    CheckpointReader,
    buffers,
    check_pieces,
)
from jscale.core.errors import CheckpointError, ConfigError
from jscale.core.layout import BlockLayout
from jscale.plan.partition import cut
from jscale.store import disk
from jscale.store.manifest import MANIFEST_FILE, BlockEntry, Manifest

JOURNAL_FILE = "conversion.json"
"""What an unfinished conversion has done; gone when the manifest is there."""


@dataclasses.dataclass(frozen=True)
class ConversionProgress:
    """How far a conversion is.

    Attributes:
      done_bytes: bytes of blocks that are written, or were found finished.
      total_bytes: bytes of all blocks.
      block: the block at work, from 0.
      num_blocks: how many there are.
      num_kept: blocks that an earlier conversion had finished.
    """

    done_bytes: int
    total_bytes: int
    block: int
    num_blocks: int
    num_kept: int


Progress = Callable[[ConversionProgress], None]
"""Called after each piece of a tensor, and after each block, by the converting thread.
What it raises ends the conversion, which can be taken up again."""


def open_checkpoint(source: os.PathLike[str] | str) -> CheckpointReader:
    """The reader for what is in that directory: Hugging Face or Orbax.

    Raises:
      CheckpointError: there is no checkpoint, or it is damaged or not supported.
    """
    directory = pathlib.Path(source)
    if not directory.is_dir():
        raise CheckpointError(
            f"{directory}: no such directory; give the folder of a model "
            "(jscale does not download models)"
        )
    if (directory / MANIFEST_FILE).exists():
        raise CheckpointError(
            f"{directory}: is a block store already; use it as it is, or convert the "
            "checkpoint that it was made of"
        )
    if is_hugging_face(directory):
        return HuggingFaceReader(directory)
    if is_orbax(directory):
        return OrbaxReader(directory)
    raise CheckpointError(
        f"{directory}: neither safetensors files nor an Orbax checkpoint in it; give "
        "a Hugging Face directory, an Orbax checkpoint with config.json beside it, or "
        "a block store"
    )


def convert(
    source: os.PathLike[str] | str,
    target: os.PathLike[str] | str,
    *,
    num_blocks: int | None = None,
    dtype: str | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Makes a block store of a checkpoint, and returns its manifest.

    Memory holds one piece of a tensor at a time. A block that an earlier, interrupted
    conversion of the same files finished is kept if its digest is right; the manifest,
    without which there is no store, is written last. If another process converts into
    the same directory, this one waits and then finds its blocks.

    Args:
      source: a Hugging Face directory or an Orbax checkpoint.
      target: the directory to be; files other than blocks are left alone.
      num_blocks: how many blocks; by default what `jscale.plan.partition.cut` finds.
      dtype: element type of the weights; by default that of the checkpoint.
      progress: told how far it is.

    Raises:
      CheckpointError: the checkpoint is missing, damaged or not supported, or the
        target cannot be written.
      ConfigError: there cannot be so many blocks, or there is no such `dtype`.
    """
    reader = open_checkpoint(source)
    layouts = lay_out(reader, num_blocks=num_blocks, dtype=dtype)
    for layout in layouts:
        check_pieces(reader, layout)
    directory = pathlib.Path(target)
    with _locked(directory):
        work = _Conversion(reader, directory, layouts, progress or (lambda _: None))
        return work.run()


def lay_out(
    reader: CheckpointReader, *, num_blocks: int | None = None, dtype: str | None = None
) -> Sequence[BlockLayout]:
    """Where every tensor of the model will lie.

    Raises:
      ConfigError: there cannot be so many blocks, or there is no such `dtype`.
    """
    dtype = dtype or reader.dtype
    if dtype not in NUMPY_DTYPES:
        raise ConfigError(f"dtype {dtype!r}: choose one of {', '.join(NUMPY_DTYPES)}")
    sizes = reader.family.part_sizes(reader.config, dtype)
    partition = cut(
        reader.config.num_layers,
        layer_bytes=sizes.layer_bytes,
        embed_bytes=sizes.embed_bytes,
        head_bytes=sizes.head_bytes,
        num_blocks=num_blocks,
    )
    return [
        reader.family.layout(reader.config, block, dtype) for block in partition.blocks
    ]


class _Journal(msgspec.Struct, frozen=True):
    """Blocks that are finished, and of what."""

    source_fingerprint: str
    blocks: tuple[BlockEntry, ...]


class _Conversion:
    """One run of the converter; owned by the thread that runs it."""

    def __init__(
        self,
        reader: CheckpointReader,
        target: pathlib.Path,
        layouts: Sequence[BlockLayout],
        progress: Progress,
    ) -> None:
        self._reader = reader
        self._target = target
        self._layouts = layouts
        self._progress = progress
        self._fingerprint = reader.fingerprint()
        self._entries: list[BlockEntry] = []
        self._done_bytes = 0
        self._num_kept = 0

    def run(self) -> Manifest:
        """Brings every block, then the tokenizer, then the manifest into being."""
        finished = _finished(self._target, self._fingerprint)
        for layout in self._layouts:
            entry = finished.get(layout.block.index)
            if entry and entry.layout == layout and disk.is_intact(self._target, entry):
                self._num_kept += 1
                self._advance(layout, layout.size_bytes)
            else:
                entry = self._write(layout)
            self._entries.append(entry)
            self._write_journal()
        return self._finish()

    def _write(self, layout: BlockLayout) -> BlockEntry:
        # Whoever reads the old store, if there is one, must not take it for whole.
        (self._target / MANIFEST_FILE).unlink(missing_ok=True)
        before = self._done_bytes
        entry = disk.write_block(
            self._target,
            layout,
            (self._counted(layout, each) for each in buffers(self._reader, layout)),
        )
        self._advance(layout, before + layout.size_bytes - self._done_bytes)
        logging.info(
            "converted block=%d of=%d size_bytes=%d target=%s",
            layout.block.index,
            len(self._layouts),
            layout.size_bytes,
            self._target,
        )
        return entry

    def _counted(
        self, layout: BlockLayout, pieces: Iterator[np.ndarray]
    ) -> Iterator[np.ndarray]:
        for piece in pieces:
            yield piece
            self._advance(layout, piece.nbytes)

    def _advance(self, layout: BlockLayout, num_bytes: int) -> None:
        self._done_bytes += num_bytes
        self._progress(
            ConversionProgress(
                done_bytes=self._done_bytes,
                total_bytes=sum(each.size_bytes for each in self._layouts),
                block=layout.block.index,
                num_blocks=len(self._layouts),
                num_kept=self._num_kept,
            )
        )

    def _write_journal(self) -> None:
        journal = _Journal(self._fingerprint, tuple(self._entries))
        data = memoryview(msgspec.json.encode(journal))
        disk.write_atomically(self._target / JOURNAL_FILE, [data])

    def _finish(self) -> Manifest:
        tokenizer = self._reader.tokenizer_file
        if tokenizer is not None:
            data = memoryview(tokenizer.read_bytes())
            disk.write_atomically(self._target / TOKENIZER_FILE, [data])
        manifest = Manifest(
            model_name=self._reader.model_name,
            family=self._reader.family.name,
            config=self._reader.config.to_dict(),
            dtype=self._layouts[0].tensors[0].dtype,
            kv_values_per_token=self._reader.family.kv_values_per_token(
                self._reader.config
            ),
            blocks=tuple(self._entries),
            tokenizer_file=None if tokenizer is None else TOKENIZER_FILE,
            source_fingerprint=self._fingerprint,
        )
        disk.write_manifest(self._target, manifest)
        (self._target / JOURNAL_FILE).unlink(missing_ok=True)
        files = {entry.file for entry in self._entries}
        for path in self._target.glob(disk.BLOCK_FILES):
            if path.name not in files:  # Of an earlier cut, or of a killed process.
                path.unlink()
        return manifest


def _finished(directory: pathlib.Path, fingerprint: str) -> Mapping[int, BlockEntry]:
    """Blocks that are said to be finished, by a store or by a conversion before us."""
    blocks: tuple[BlockEntry, ...] = ()
    with contextlib.suppress(OSError, msgspec.MsgspecError, AssertionError):
        data = (directory / JOURNAL_FILE).read_bytes()
        journal = msgspec.json.decode(data, type=_Journal)
        if journal.source_fingerprint == fingerprint:
            blocks = journal.blocks
    with contextlib.suppress(CheckpointError):
        manifest = Manifest.load(directory)
        if manifest.source_fingerprint == fingerprint:
            blocks = manifest.blocks
    return {entry.layout.block.index: entry for entry in blocks}


@contextlib.contextmanager
def _locked(directory: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from converting into the directory; ends with the process.

    Raises:
      CheckpointError: the directory cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise CheckpointError(
            f"{directory}: cannot be made ({error.strerror or error}); "
            "choose another target"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
