"""Serialised executables in one run of bytes, as they travel ahead of the weights."""

import dataclasses
import hashlib
import struct
import zlib
from collections.abc import Mapping

import msgspec

from jscale.core.errors import IntegrityError
from jscale.engine.fingerprint import Fingerprint

_MAGIC = b"jscalex1"
_HEAD = struct.Struct("<8sI")
_COMPRESSION_LEVEL = 1


class _Contents(msgspec.Struct, frozen=True):
    """What the header tells: the facts, and the compressed size of each entry."""

    fingerprint: dict[str, str]
    sizes_bytes: dict[str, int]


@dataclasses.dataclass(frozen=True)
class ExecutableBundle:
    """A bundle whose digest was right; entries are unpacked one by one when wanted.

    JAX unpickles them: open only bundles whose digest came from somebody trusted.
    """

    fingerprint: Fingerprint
    entries: Mapping[str, memoryview]

    def serialized(self, name: str) -> bytes | None:
        """One executable as JAX serialised it; None if it is not in the bundle."""
        if name not in self.entries:
            return None
        return zlib.decompress(self.entries[name])


def pack_bundle(fingerprint: Fingerprint, serialized: Mapping[str, bytes]) -> bytes:
    """The bundle of these executables. Same contents, same bytes."""
    packed = {
        name: zlib.compress(serialized[name], _COMPRESSION_LEVEL)
        for name in sorted(serialized)
    }
    contents = msgspec.msgpack.encode(
        _Contents(dict(fingerprint), {name: len(data) for name, data in packed.items()})
    )
    head = _HEAD.pack(_MAGIC, len(contents))
    return b"".join((head, contents, *packed.values()))


def bundle_digest(data: bytes | memoryview) -> str:
    """The SHA-256 that names a bundle, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def open_bundle(data: bytes | memoryview, *, sha256: str) -> ExecutableBundle:
    """The bundle in `data`, which must stay unchanged while it is used.

    Raises:
      IntegrityError: the bytes are not those that `sha256` promises.
    """
    found = bundle_digest(data)
    if found != sha256:
        raise IntegrityError(
            f"executables: sha256 {found}, expected {sha256}; compiling them here"
        )
    view = memoryview(data)
    try:
        magic, size = _HEAD.unpack_from(view)
        if magic != _MAGIC:
            raise ValueError(f"starts with {bytes(magic)!r}, not {_MAGIC!r}")
        end = _HEAD.size + size
        contents = msgspec.msgpack.decode(view[_HEAD.size : end], type=_Contents)
        if len(view) != end + sum(contents.sizes_bytes.values()):
            raise ValueError(f"{len(view)} bytes are not what the header tells")
    except (ValueError, struct.error) as error:
        raise IntegrityError(f"executables: {error}; compiling them here") from error
    entries = {}
    for name, size in contents.sizes_bytes.items():
        entries[name] = view[end : end + size]
        end += size
    return ExecutableBundle(contents.fingerprint, entries)
