"""Where a worker finds blocks without the network: memory of its host, and its disk."""

import pathlib
import threading
import time

from absl import logging

from jscale.cluster.config import WorkerConfig
from jscale.core.chunks import ChunkTable
from jscale.core.units import NS_PER_MS
from jscale.store.block_reader import BlockReader, ChunkSlots
from jscale.store.block_store import BlockStore
from jscale.store.host_tier import HostTier
from jscale.store.manifest import manifest_fingerprint
from jscale.store.regions import RegionState

LOOK_AGAIN_S = 0.1
"""How long chunks that arrive by another way may take before they are looked at."""

_HAS_ALL_BYTES = (RegionState.VERIFYING, RegionState.READY)


class LocalCopies:
    """Reads blocks from the fastest place that has them; puts models into host memory.

    `read` and `keep` take long and are called on threads of their own, one at a time
    each; everything else by anybody.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self._reads_disk = config.can_load_from_disk
        tier = config.host_tier
        self._tier = HostTier(tier) if tier.capacity_mib else None
        self._readers: list[BlockReader] = []
        self._is_closing = threading.Event()

    def in_host_memory(self) -> tuple[tuple[str, ...], float]:
        """Fingerprints of the models that are there, and how fast they are read."""
        models = self._tier.models() if self._tier is not None else ()
        if self._tier is None or not models:
            return (), 0.0
        return models, self._tier.measure_bytes_per_s(models[-1])

    def read(
        self, store: BlockStore, directory: pathlib.Path, slots: ChunkSlots
    ) -> None:
        """Reads what the store lacks, chunk by chunk, and returns when all has landed.

        What arrives by another way is left to it, and read if it does not come after
        all (the connection was cut in mid-chunk, say).

        Args:
          store: that `slots` belong to.
          directory: the block store on disk.
          slots: where chunks go, numbered as if there were no executables.

        Raises:
          CheckpointError: a block is nowhere, unreadable, or of another size.
        """
        self._readers.clear()
        manifest = store.manifest
        chunk_size_bytes = store.chunks.chunk_size_bytes
        chunks = ChunkTable((0, *manifest.block_sizes_bytes), chunk_size_bytes)
        while places := self._places(store, directory):
            started_ns = time.monotonic_ns()
            reader = BlockReader(chunks, places, slots)
            self._readers.append(reader)
            if self._is_closing.is_set():
                return
            report = reader.run()
            took_ms = (time.monotonic_ns() - started_ns) / NS_PER_MS
            if report.size_bytes:
                logging.info("read=%s took_ms=%.1f", report, took_ms)
            else:
                self._readers.remove(reader)
                self._is_closing.wait(LOOK_AGAIN_S)

    def _places(
        self, store: BlockStore, directory: pathlib.Path
    ) -> dict[int, list[pathlib.Path]]:
        """Where to read what is missing.

        Not of blocks that were read already: if their digest was wrong, it would be so
        again.
        """
        manifest = store.manifest
        fingerprint = manifest_fingerprint(manifest.to_bytes())
        places: dict[int, list[pathlib.Path]] = {}
        for block, entry in enumerate(manifest.blocks):
            if store.state(block) in _HAS_ALL_BYTES or self._file_of(block):
                continue
            places[block] = []
            if self._tier is not None:
                places[block].append(self._tier.file(fingerprint, entry.file))
            if self._reads_disk or self._tier is None:
                places[block].append(directory / entry.file)
        return places

    def _file_of(self, block: int) -> pathlib.Path | None:
        files = (reader.file_of(block) for reader in tuple(self._readers))
        return next(filter(None, files), None)

    def damaged(self, block: int) -> pathlib.Path | None:
        """The file that a block was read from whose digest was wrong, if it was one.

        From host memory it is taken away: the next time it is read from disk.
        """
        path = self._file_of(block)
        if path is not None and self._tier is not None:
            self._tier.drop(path)
        return path

    def keep(self, store: BlockStore) -> None:
        """Puts a model of which all blocks are ready into host memory, if it may."""
        if self._tier is None:
            return
        started_ns = time.monotonic_ns()
        if self._tier.keep(store.manifest, store.block_bytes):
            took_ms = (time.monotonic_ns() - started_ns) / NS_PER_MS
            logging.info(
                "host_tier=%s took_ms=%.1f", store.manifest.model_name, took_ms
            )

    def close(self) -> None:
        """Ends what is under way on other threads, soon."""
        self._is_closing.set()
        for reader in tuple(self._readers):
            reader.stop()
        if self._tier is not None:
            self._tier.close()
