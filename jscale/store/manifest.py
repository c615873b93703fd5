"""The manifest of a block store: all that must be known of a model but its weights."""

import functools
import hashlib
import os
import pathlib
from typing import Any

import msgspec

from jscale.core.errors import CheckpointError
from jscale.core.layout import DTYPE_SIZE_BYTES, BlockLayout
from jscale.core.partition import Partition
from jscale.store.digest import DIGEST_LENGTH

FORMAT_VERSION = 2
MANIFEST_FILE = "manifest.json"


def manifest_fingerprint(manifest: bytes) -> str:
    """A name for the model: equal manifests are equal models, to the last bit."""
    return hashlib.sha256(manifest).hexdigest()[:32]


class BlockEntry(msgspec.Struct, frozen=True):
    """One block: where its tensors lie, and what its bytes must hash to."""

    layout: BlockLayout
    digest: str
    file: str

    def __post_init__(self) -> None:
        _check_file_name(self.file)
        if len(self.digest) != DIGEST_LENGTH:
            raise ValueError(
                f"digest {self.digest!r} is not {DIGEST_LENGTH} hexadecimal digits"
            )


class Manifest(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A model as blocks; `family` and `config` are for `jscale.models` to read."""

    format_version: int = FORMAT_VERSION
    model_name: str
    family: str
    config: dict[str, Any]
    dtype: str
    blocks: tuple[BlockEntry, ...]
    tokenizer_file: str | None = None
    kv_values_per_token: int = 0
    """Numbers that the KV of one token is, over all layers; 0: not told."""
    source_fingerprint: str = ""
    """Digest of what the store was converted from, to notice that it changed."""

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise ValueError(
                f"format version {self.format_version}, this jscale reads "
                f"{FORMAT_VERSION}: convert the model again"
            )
        if self.dtype not in DTYPE_SIZE_BYTES:
            raise ValueError(f"dtype {self.dtype!r} is not in {[*DTYPE_SIZE_BYTES]}")
        if self.tokenizer_file is not None:
            _check_file_name(self.tokenizer_file)
        _ = self.partition

    @functools.cached_property
    def partition(self) -> Partition:
        """The cut of the model into blocks."""
        return Partition(tuple(entry.layout.block for entry in self.blocks))

    @property
    def num_blocks(self) -> int:
        """How many blocks there are."""
        return len(self.blocks)

    @property
    def block_sizes_bytes(self) -> tuple[int, ...]:
        """Bytes of each block, padding included."""
        return tuple(entry.layout.size_bytes for entry in self.blocks)

    @property
    def size_bytes(self) -> int:
        """Bytes of all blocks together."""
        return sum(self.block_sizes_bytes)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the manifest, hence of the whole model: hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """The manifest as JSON; equal manifests give equal bytes."""
        packed = msgspec.json.encode(self, order="deterministic")
        return msgspec.json.format(packed, indent=1) + b"\n"

    @staticmethod
    def from_bytes(data: bytes, origin: str = "manifest") -> "Manifest":
        """The manifest that `to_bytes` wrote; `origin` names it in errors.

        Raises:
          CheckpointError: it is not a manifest, or one that contradicts itself.
        """
        try:
            return msgspec.json.decode(data, type=Manifest)
        except (msgspec.MsgspecError, AssertionError) as error:
            # The core asserts what every layout and partition must satisfy.
            raise CheckpointError(
                f"{origin}: not a manifest of a block store ({error}); "
                "convert the model again"
            ) from error

    @staticmethod
    def load(directory: os.PathLike[str] | str) -> "Manifest":
        """The manifest of the block store in that directory.

        Raises:
          CheckpointError: there is none, or it cannot be read.
        """
        path = pathlib.Path(directory) / MANIFEST_FILE
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CheckpointError(
                f"{path}: {error.strerror or error}; is this a finished block store? "
                "make one with jscale-convert"
            ) from error
        return Manifest.from_bytes(data, origin=str(path))


def _check_file_name(name: str) -> None:
    """A manifest may come from elsewhere: it names files of its own folder only."""
    if pathlib.PurePath(name).name != name or name in ("", ".", ".."):
        raise ValueError(f"{name!r} is not the plain name of a file")
