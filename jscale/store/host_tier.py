"""Copies of models in host memory, which outlive workers and are shared by them."""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from absl import logging

from jscale.core.errors import CheckpointError, ConfigError
from jscale.core.ids import ModelName
from jscale.core.units import MIB, NS_PER_S, format_size
from jscale.plan.host_cache import make_room
from jscale.plan.placement import HostCopies
from jscale.store import disk
from jscale.store.manifest import MANIFEST_FILE, Manifest, manifest_fingerprint

HOST_TIER_DIR = "/dev/shm/jscale"
"""A file system in memory, on every Linux."""

PROBE_BYTES = 16 * MIB
"""What is read to see how fast: 2 to 10 ms."""

_LOCK_FILE = "lock"
_FINGERPRINT = re.compile("[0-9a-f]{32}")
"""By this name we know our folders: what else is in the directory is not touched."""

_LOOK_AGAIN_S = 0.2


@dataclasses.dataclass(frozen=True)
class HostTierConfig:
    """Where copies are, and how much they may take.

    Attributes:
      directory: of a file system in memory, shared by the workers of a host.
      capacity_mib: what all copies together may take there, MiB; 0: there are none.
    """

    directory: str = HOST_TIER_DIR
    capacity_mib: int = 0

    def __post_init__(self) -> None:
        if self.capacity_mib < 0:
            raise ConfigError(
                f"host_tier_mib is {self.capacity_mib}: give at least 0, which is none"
            )
        if not self.directory:
            raise ConfigError(
                f"host_tier_dir is empty: give a directory, {HOST_TIER_DIR} say"
            )


class HostTier:
    """A folder for each model, in the form of a block store. Thread-safe.

    Any number of processes may use it at once. One at a time writes or evicts, behind a
    lock of the kernel's that ends with its process; a file appears under its name when
    it is whole, and a model's manifest when all of its blocks are. Who reads needs no
    lock: a file that is evicted meanwhile stays until it is closed, and one that is
    gone is read from elsewhere. Nothing in it is trusted: whoever reads a block checks
    its digest, as of one that comes by the network.

    What cannot be kept is logged and passed by: losing it loses time only.
    """

    def __init__(self, config: HostTierConfig) -> None:
        self._folder = pathlib.Path(config.directory).expanduser()
        self._capacity_bytes = config.capacity_mib * MIB
        self._is_closing = threading.Event()

    def models(self) -> tuple[str, ...]:
        """Fingerprints of models that are whole here, the longest unused first."""
        return tuple(each for each in self._by_use() if self._is_whole(each))

    def file(self, fingerprint: str, name: str) -> pathlib.Path:
        """Where a block's file is, if it is here."""
        return self._folder / fingerprint / name

    def used(self, fingerprint: str) -> None:
        """A model was loaded, from here or elsewhere: others go first."""
        with contextlib.suppress(OSError):
            os.utime(self._folder / fingerprint)

    def drop(self, path: pathlib.Path) -> None:
        """Takes a block away that turned out to be damaged."""
        if self._folder in path.parents:
            for each in (path.with_name(MANIFEST_FILE), path):
                with contextlib.suppress(OSError):
                    each.unlink()

    def keep(
        self, manifest: Manifest, block_bytes: Callable[[int], Iterable[memoryview]]
    ) -> bool:
        """Puts a model here, unless it is; others make room for it.

        Waits while another process writes. Whether it is here now.

        Args:
          manifest: the model.
          block_bytes: the bytes of a block, in pieces, which were verified.
        """
        fingerprint = manifest_fingerprint(manifest.to_bytes())
        try:
            with self._alone() as is_alone:
                if not is_alone or not self._make_room(fingerprint, manifest):
                    return False
                try:
                    self._write(fingerprint, manifest, block_bytes)
                except CheckpointError:  # No room in the file system, say.
                    self._evict(fingerprint)
                    raise
        except _ClosingError:
            return False
        except (OSError, CheckpointError) as error:
            logging.warning("host tier: %s is not kept: %s", manifest.model_name, error)
            return False
        self.used(fingerprint)
        return True

    def close(self) -> None:
        """Ends a `keep` that is under way on another thread."""
        self._is_closing.set()

    def measure_bytes_per_s(self, fingerprint: str) -> float:
        """How fast a copy is read from here, by reading a little; 0: it is not."""
        files = sorted((self._folder / fingerprint).glob(disk.BLOCK_FILES))
        try:
            with max(files, key=_size_of).open("rb", buffering=0) as file:
                into = memoryview(bytearray(PROBE_BYTES))
                file.readinto(into)  # Pages of `into` are there from now on.
                file.seek(0)
                began_ns = time.perf_counter_ns()
                count = file.readinto(into)
                return count * NS_PER_S / (time.perf_counter_ns() - began_ns)
        except (OSError, ValueError):
            return 0.0

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """No other process writes or evicts meanwhile; False: we are closing."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._folder / _LOCK_FILE).open("w") as file:
            while not self._is_closing.is_set():
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self._is_closing.wait(_LOOK_AGAIN_S)
                else:
                    yield True
                    return
        yield False

    def _make_room(self, fingerprint: str, manifest: Manifest) -> bool:
        """Evicts what has to go, and what a process that died left half-written."""
        models = self._by_use()
        for model in models:
            for partial in (self._folder / model).glob("*.partial"):
                partial.unlink()
        sizes_bytes = {ModelName(m): self._size_bytes(m) for m in models}
        ours = ModelName(fingerprint)
        lacking = manifest.size_bytes - sizes_bytes.pop(ours, 0)
        host = HostCopies(
            "this",
            memory_bytes=self._capacity_bytes - (manifest.size_bytes - lacking),
            in_memory=tuple(sizes_bytes),
        )
        # Every model is on disk too, and where its home is, nobody has said.
        room = make_room(
            host,
            lacking,
            sizes_bytes=sizes_bytes,
            homes={},
            num_copies=dict.fromkeys(sizes_bytes, 2),
        )
        if not room.is_enough:
            logging.warning(
                "host tier: %s of %s does not fit into %s; it is not kept",
                format_size(manifest.size_bytes),
                manifest.model_name,
                format_size(self._capacity_bytes),
            )
            return False
        for model in room.evicted:
            logging.info("host tier: evicted=%s", model)
            self._evict(model)
        return True

    def _evict(self, fingerprint: str) -> None:
        """The manifest first: nobody takes for whole what is not any more."""
        with contextlib.suppress(OSError):
            self.file(fingerprint, MANIFEST_FILE).unlink()
        shutil.rmtree(self._folder / fingerprint, ignore_errors=True)

    def _write(
        self,
        fingerprint: str,
        manifest: Manifest,
        block_bytes: Callable[[int], Iterable[memoryview]],
    ) -> None:
        for index, entry in enumerate(manifest.blocks):
            path = self.file(fingerprint, entry.file)
            if _size_of(path) != entry.layout.size_bytes:
                pieces = self._while_open(block_bytes(index))
                disk.write_atomically(path, pieces)
        disk.write_manifest(self._folder / fingerprint, manifest)

    def _while_open(self, parts: Iterable[memoryview]) -> Iterator[memoryview]:
        for part in parts:
            if self._is_closing.is_set():
                raise _ClosingError
            yield part

    def _by_use(self) -> list[str]:
        """Models of which something is here, the longest unused first."""
        times_ns: dict[str, int] = {}
        with contextlib.suppress(OSError):
            for folder in self._folder.iterdir():
                with contextlib.suppress(OSError):
                    if _FINGERPRINT.fullmatch(folder.name) and folder.is_dir():
                        times_ns[folder.name] = folder.stat().st_mtime_ns
        return sorted(times_ns, key=lambda name: (times_ns[name], name))

    def _is_whole(self, fingerprint: str) -> bool:
        return self.file(fingerprint, MANIFEST_FILE).exists()

    def _size_bytes(self, fingerprint: str) -> int:
        files = (self._folder / fingerprint).glob(disk.BLOCK_FILES)
        return sum(max(_size_of(path), 0) for path in files)


class _ClosingError(Exception):
    """The worker ends: what it was writing is left to the next."""


def _size_of(path: pathlib.Path) -> int:
    """Bytes of a file; -1: there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
