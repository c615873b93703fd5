"""Everything slow between bytes and a running model, on threads of its own.

Threads for reading, for keeping copies, for digests and for executables, so that none
waits for another.
What they bring about is posted to the state machine as events.
"""

import concurrent.futures
import os
import time
from collections.abc import Callable
from pathlib import Path

from absl import logging

from jscale.cluster import data_path
from jscale.cluster import worker_events as events
from jscale.cluster.config import WorkerConfig
from jscale.cluster.device import Device
from jscale.cluster.local_copies import LocalCopies
from jscale.cluster.messages import Bundle, ModelSpec
from jscale.cluster.worker_events import EXECUTABLES_REGION, WorkerEvent
from jscale.core.errors import (
    CheckpointError,
    IntegrityError,
    OverloadedError,
    UnavailableError,
)
from jscale.core.ids import WorkerId
from jscale.core.units import NS_PER_MS, NS_PER_US, mbit_to_bytes_per_s
from jscale.engine.bundle import bundle_digest, open_bundle
from jscale.engine.bundle_cache import BundleCache
from jscale.engine.executables import AnySpec, ExecutableSet
from jscale.engine.executor import Emulation, StageExecutor
from jscale.engine.fingerprint import ExecutableMismatchError, fingerprint_digest
from jscale.engine.kv_copy import kv_copy_specs
from jscale.engine.program import ModelProgram
from jscale.pipeline.messages import PipelineSpec
from jscale.pipeline.outbox import Outbox
from jscale.pipeline.stage_host import StageHost
from jscale.store.accelerator import new_arena
from jscale.store.block_reader import ChunkSlots
from jscale.store.block_store import BlockStore
from jscale.store.manifest import Manifest
from jscale.transport.base import Transport

DIGESTS_AT_ONCE_MAX = 4
"""Blocks that are hashed at the same time, if there are so many cores: a core hashes
10 GB/s, and some disks together give more."""


class Loader:
    """Owns a worker's blocks, executables and device thread."""

    def __init__(
        self,
        config: WorkerConfig,
        spec: ModelSpec,
        copies: LocalCopies,
        outbox: Outbox,
        post: Callable[[WorkerEvent], None],
        failed: Callable[[BaseException], None],
        transport: Transport,
    ) -> None:
        """Reserves the arena, tells the transport of it, starts the device thread.

        Raises:
          CheckpointError: the model is of a family that is not known here.
          ConfigError: the machine has not the memory.
        """
        manifest = Manifest.from_bytes(spec.manifest)
        self._copies = copies
        self._post = post
        self._failed = failed
        self._ships_executables = config.ships_executables
        self._program = ModelProgram.of(manifest, spec.engine)
        # Before anything else asks JAX for a device: the arena comes first, XLA takes
        # what it leaves.
        self.store = BlockStore(
            manifest,
            chunk_size_bytes=spec.chunk_size_bytes,
            new_arena=new_arena(config.device_memory),
        )
        self.data_path = data_path.register(self.store.arena, transport)
        logging.info("worker=%s data_path=%s", config.worker, self.data_path)
        post(events.DataPathChosen(self.data_path))
        self._executables = ExecutableSet(self._program)
        self._cache = BundleCache(config.cache_dir)
        emulation = Emulation(layer_ns=config.emulate_layer_us * NS_PER_US)
        self._executor = StageExecutor(self._executables, emulation)
        host = StageHost(
            WorkerId(config.worker),
            spec.engine,
            self._executor,
            outbox,
            eos_token_ids=self._program.model.eos_token_ids,
            link_bytes_per_s=config.link_mbit_s
            and mbit_to_bytes_per_s(config.link_mbit_s),
        )
        self.device = Device(host, failed)
        self.device.start()
        self._compiled: tuple[Bundle, bytes] | None = None
        self._reading_thread = concurrent.futures.ThreadPoolExecutor(1, "reading")
        self._keeping_thread = concurrent.futures.ThreadPoolExecutor(1, "keeping")
        num_digests = min(DIGESTS_AT_ONCE_MAX, os.cpu_count() or 1)
        self._digest_threads = concurrent.futures.ThreadPoolExecutor(
            num_digests, "digests"
        )
        self._executables_thread = concurrent.futures.ThreadPoolExecutor(
            1, "executables"
        )

    def close(self) -> None:
        """Ends the threads; what they had not begun is dropped."""
        self._copies.close()
        self._cache.close()
        self._reading_thread.shutdown(cancel_futures=True)
        self._keeping_thread.shutdown(cancel_futures=True)
        self._digest_threads.shutdown(cancel_futures=True)
        self._executables_thread.shutdown(cancel_futures=True)
        self.device.stop()

    @property
    def compiled(self) -> tuple[Bundle, bytes]:
        """The executables that were compiled here, to be placed."""
        assert self._compiled is not None
        return self._compiled

    def read_from_disk(self, path: Path, slots: ChunkSlots) -> None:
        """Reads what is missing, chunk by chunk; `verify` follows for each full block.

        Args:
          path: of the block store.
          slots: where chunks go, numbered as if there were no executables.
        """
        self._submit(self._reading_thread, lambda: self._read(path, slots))

    def verify(self, block: int) -> None:
        """Verifies and publishes a block whose bytes are all there."""
        self._submit(self._digest_threads, lambda: self._verify(block))

    def load_executables(self, bundle: Bundle) -> None:
        """Loads what was received."""
        self._submit(self._executables_thread, lambda: self._load_received(bundle))

    def compile_executables(self) -> None:
        """Compiles, or takes what this machine compiled before; then `compiled`."""
        self._submit(self._executables_thread, self._compile)

    def open_stages(self, spec: PipelineSpec) -> None:
        """Leases pages for a pipeline."""

        def open_on(host: StageHost) -> None:
            try:
                host.open(spec)
            except (OverloadedError, UnavailableError) as error:
                self._post(events.StagesRefused(spec.pipeline, str(error)))
            else:
                self._post(events.StagesOpened(spec.pipeline))

        self.device.post(open_on)

    # --- on the threads ------------------------------------------------------------

    def _submit(
        self,
        thread: concurrent.futures.ThreadPoolExecutor,
        work: Callable[[], None],
    ) -> None:
        def told() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - told, and the process ends
                self._failed(error)

        thread.submit(told)

    def _read(self, path: Path, slots: ChunkSlots) -> None:
        try:
            self._copies.read(self.store, path, slots)
        except CheckpointError as error:
            logging.error("%s", error)
            self._post(events.DiskLoadFailed(str(error)))

    def _verify(self, block: int) -> None:
        try:
            self.store.verify(block)
        except IntegrityError as error:
            reason = str(error)
            if (path := self._copies.damaged(block)) is not None:
                reason = (
                    f"{path} is corrupted: {reason}; convert the model again, or copy "
                    "the file from where it is whole"
                )
            logging.error("%s", reason)
            self._post(events.RegionCorrupt(block + 1, reason))
        else:
            self._publish(block)

    def _publish(self, block: int) -> None:
        """Gives the views to the device first: what is reported ready can be run."""
        leaves = self.store.publish(block)

        def set_block(_: StageHost) -> None:
            self._executor.set_block(block, leaves)
            self._post(events.BlockPublished(block))

        self.device.post(set_block)
        if len(self.store.ready_blocks) == self.store.manifest.num_blocks:
            self._submit(self._keeping_thread, lambda: self._copies.keep(self.store))

    def _load_received(self, bundle: Bundle) -> None:
        started_ns = time.monotonic_ns()
        try:
            data = self.store.verified_executables(bundle.sha256)
            if data is None:
                logging.info("executables of an earlier plan: those of this one follow")
                return
            opened = open_bundle(data, sha256=bundle.sha256)
            self._executables.load(opened, self._program.stage_specs())
            self._loaded("received", started_ns, None)
            self._executables.load(opened, self._late_specs)
        except IntegrityError as error:
            self._post(events.RegionCorrupt(EXECUTABLES_REGION, str(error)))
        except ExecutableMismatchError as error:
            self._post(events.ExecutablesMismatched(str(error)))
        else:
            self._loaded("received", started_ns, bundle)

    @property
    def _late_specs(self) -> tuple[AnySpec, ...]:
        """Executables that a worker can begin to serve without."""
        return (*self._program.fused_specs(), *kv_copy_specs(self._program))

    def _compile(self) -> None:
        """Takes what this machine compiled before; else one of its processes does."""
        started_ns = time.monotonic_ns()
        digest = fingerprint_digest(self._executables.fingerprint)
        if self._take_cached(digest, started_ns):
            return
        with self._cache.alone(digest) as may_compile:
            if not may_compile or self._take_cached(digest, started_ns):
                return  # Another process did while we waited, or we are closing.
            self._executables.compile(self._program.stage_specs())
            self._loaded("compiled", started_ns, None)
            self._executables.compile(self._late_specs)
            data = self._executables.to_bundle()
            self._cache.keep(digest, data)
        self._are_here("compiled", started_ns, data, digest)

    def _take_cached(self, digest: str, started_ns: int) -> bool:
        data = self._cache.find(digest)
        if data is None:
            return False
        try:
            opened = open_bundle(data, sha256=bundle_digest(data))
            specs = (*self._program.stage_specs(), *self._late_specs)
            self._executables.load(opened, specs)
        except (IntegrityError, ExecutableMismatchError) as error:
            logging.warning("cached %s", error)
            return False
        self._are_here("cached", started_ns, data, digest)
        return True

    def _are_here(
        self, origin: str, started_ns: int, data: bytes, fingerprint: str
    ) -> None:
        bundle = None
        if self._ships_executables:
            bundle = Bundle(bundle_digest(data), len(data), fingerprint)
            self._compiled = bundle, data
        self._loaded(origin, started_ns, bundle, is_complete=True)

    def _loaded(
        self,
        origin: str,
        started_ns: int,
        bundle: Bundle | None,
        *,
        is_complete: bool | None = None,
    ) -> None:
        took_ms = (time.monotonic_ns() - started_ns) / NS_PER_MS
        logging.info("executables origin=%s took_ms=%.1f", origin, took_ms)
        complete = bundle is not None if is_complete is None else is_complete
        self._post(events.ExecutablesLoaded(origin, took_ms, complete, bundle))
