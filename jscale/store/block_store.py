"""Which bytes of a model this worker holds, from the first chunk to eviction."""

import contextlib
import gc
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax

from jscale.core.chunks import REGION_ALIGNMENT_BYTES, ChunkTable, chunk_size_for
from jscale.core.errors import CheckpointError, ConfigError, IntegrityError
from jscale.core.ids import BlockIndex, ChunkIndex
from jscale.core.spans import Bytes, in_host_memory
from jscale.core.units import MIB, format_size, round_up
from jscale.store.arena import Arena, ArenaSizes, InUseError
from jscale.store.block_reader import BlockReader
from jscale.store.host_arena import HostArena
from jscale.store.ledger import Ledger
from jscale.store.manifest import Manifest
from jscale.store.regions import RegionState

EXECUTABLES_REGION = 0
"""The region of the compiled executables; region `1 + i` is block i."""

EXECUTABLES_SIZE_BYTES_MAX = 64 * MIB
"""Address space kept for executables; a bundle takes about 0.2 MB an executable."""

_Place = TypeVar("_Place", memoryview, Bytes)


def region_of(block: BlockIndex | int) -> int:
    """The region where a block lies."""
    return 1 + block


class BlockStore:
    """The blocks of one model in one arena: MISSING → FILLING → VERIFYING → READY.

    Any thread may call any method: one lock guards the states, and is held neither
    while bytes move nor while they are hashed. `slot` and `landed` are for whoever
    receives chunks (or `failed`); `verify` and `publish` follow when a region is full.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        chunk_size_bytes: int | None = None,
        executables_size_bytes_max: int = EXECUTABLES_SIZE_BYTES_MAX,
        new_arena: Callable[[ArenaSizes], Arena] = HostArena,
    ) -> None:
        """Reserves the arena for the whole model; host memory is taken as blocks come.

        All members of a multicast must use the same `chunk_size_bytes`; by default it
        is what suits the size of the model. The room for executables, in address space,
        becomes memory only as far as it is used.

        Raises:
          ConfigError: this machine has not the memory.
        """
        chunk_size_bytes = chunk_size_bytes or chunk_size_for(manifest.size_bytes)
        self._manifest = manifest
        table = ChunkTable((0, *manifest.block_sizes_bytes), chunk_size_bytes)
        self._ledger = Ledger(table)
        room = round_up(executables_size_bytes_max, REGION_ALIGNMENT_BYTES)
        self._arena = new_arena(ArenaSizes(table.size_bytes, room, chunk_size_bytes))

    @property
    def manifest(self) -> Manifest:
        """The model."""
        return self._manifest

    @property
    def arena(self) -> Arena:
        """Where the bytes are."""
        return self._arena

    @property
    def chunks(self) -> ChunkTable:
        """How the arena is cut; another one after the executables changed in size."""
        return self._ledger.table

    @property
    def ready_blocks(self) -> tuple[BlockIndex, ...]:
        """The blocks that are verified, in order."""
        with self._ledger.lock:
            return tuple(
                BlockIndex(index)
                for index, region in enumerate(self._ledger.regions[1:])
                if region.state is RegionState.READY
            )

    def state(self, block: BlockIndex | int) -> RegionState:
        """How far a block is."""
        return self._ledger.regions[region_of(block)].state

    def holds(self, block: BlockIndex | int) -> bool:
        """Whether a block is verified and can be published."""
        return self.state(block) is RegionState.READY

    def holds_chunk(self, chunk: ChunkIndex | int) -> bool:
        """Whether a chunk has landed, and so may be sent on."""
        return self._ledger.holds(chunk)

    def held_chunks(self) -> bytes:
        """Every landed chunk as a bitmap: chunk i is bit `i % 8` of byte `i // 8`."""
        return self._ledger.held()

    def slot(self, chunk: ChunkIndex | int) -> Bytes | None:
        """Where the bytes of a chunk go; None: they are here or arriving, drop them.

        The slot is the caller's alone until it calls `landed` or `failed`. On the
        device only if the transport reaches it.
        """
        return self._slot(chunk, self._arena.slot)

    def host_slot(self, chunk: ChunkIndex | int) -> memoryview | None:
        """The same, for who reads from a file: always in host memory, page-aligned."""
        return self._slot(chunk, self._arena.host_slot)

    def landed(self, chunk: ChunkIndex | int) -> int | None:
        """Notes that a chunk is in its slot, its checksum right.

        Returns the region that this chunk completed (0: the executables, `1 + i`:
        block i), to be verified next by the caller, and by nobody else; else None.
        """
        place = self.chunks.chunk(chunk)
        self._arena.landed(place.offset_bytes)
        return self._ledger.land(place)

    def copy_in(self, chunk: ChunkIndex | int, data: memoryview) -> int | None:
        """Puts the bytes of a chunk in its place, unless they are here or arriving.

        Returns what `landed` does. If `data` is in memory that was given to
        `arena.pin`, it must stay as it is until the chunk's block was verified.
        """
        place = self.chunks.chunk(chunk)
        assert data.nbytes == place.size_bytes, (chunk, data.nbytes)
        if not self._ledger.claim(place):
            return None
        try:
            self._arena.write(place.offset_bytes, data)
        except BaseException:
            self._ledger.abandon(place)
            raise
        return self._ledger.land(place)

    def failed(self, chunk: ChunkIndex | int) -> None:
        """Notes that the slot of a chunk holds rubbish: the chunk is missing again."""
        place = self.chunks.chunk(chunk)
        self._arena.failed(place.offset_bytes)
        self._ledger.abandon(place)

    def chunk_bytes(self, chunk: ChunkIndex | int) -> Bytes:
        """The bytes of a landed chunk, read-only, to be sent from where they lie.

        On a device that the transport does not reach, a copy. Between `acquire` and
        `release` of its block they stay; without, an eviction may take them away. If
        the block has just turned out to be corrupt they are whatever is there: the
        receiver's digest will tell, as ours did.
        """
        place = self.chunks.chunk(chunk)
        return self._arena.read(place.offset_bytes, place.size_bytes)

    def block_bytes(self, block: BlockIndex | int) -> Iterator[memoryview]:
        """The bytes of a ready block in host memory, a chunk's worth at a time."""
        start = self.chunks.region_offset_bytes(region_of(block))
        end = start + self.chunks.region_sizes_bytes[region_of(block)]
        with self.acquired(block):
            for offset in range(start, end, self.chunks.chunk_size_bytes):
                size_bytes = min(self.chunks.chunk_size_bytes, end - offset)
                yield in_host_memory(self._arena.read(offset, size_bytes))

    def verify(self, block: BlockIndex | int) -> None:
        """Checks the digest of a full block, which is then ready.

        Raises:
          IntegrityError: it is not the manifest's. None of the block's chunks is held
            any longer: it can be fetched or loaded again.
        """
        expected = self._manifest.blocks[block].digest
        region = region_of(block)
        offset_bytes = self.chunks.region_offset_bytes(region)
        size_bytes = self.chunks.region_sizes_bytes[region]
        actual = self._arena.digest(offset_bytes, size_bytes)
        with self._ledger.lock:
            found = self._ledger.regions[region]
            found.settle(self._name(block), actual, expected)

    def load(self, block: BlockIndex | int, directory: os.PathLike[str] | str) -> None:
        """Reads what is missing of a block from a block store on disk; verifies it.

        Does nothing if the block is ready. Must not be called while chunks of the
        block are being received, and not twice at once.

        Raises:
          CheckpointError: the file is missing, unreadable, or of another size.
          IntegrityError: its bytes are not those of the manifest.
        """
        if self.holds(block):
            return
        path = pathlib.Path(directory) / self._manifest.blocks[block].file
        try:
            BlockReader(self.chunks, {block: [path]}, self).run()
        except CheckpointError as error:
            raise CheckpointError(f"{self._name(block)}: {error}") from error
        try:
            self.verify(block)
        except IntegrityError as error:
            raise IntegrityError(
                f"{path} is corrupted: {error}; convert the model again, or copy the "
                "file from where it is whole"
            ) from error

    def publish(self, block: BlockIndex | int) -> tuple[jax.Array, ...]:
        """The parameters of a ready block, in the layout's order, without a copy.

        The block cannot be evicted while any of them lives.
        """
        layout = self._manifest.blocks[block].layout
        offset = self.chunks.region_offset_bytes(region_of(block))
        with self._ledger.lock:
            region = self._ledger.regions[region_of(block)]
            assert region.state is RegionState.READY, (block, region.state)
            lent = region.lend()
        return tuple(
            self._arena.view(offset, tensor, keep_alive=lent)
            for tensor in layout.tensors
        )

    def acquire(self, block: BlockIndex | int) -> None:
        """Keeps the chunks of a block in place for somebody who reads them."""
        with self._ledger.lock:
            self._ledger.regions[region_of(block)].num_users += 1

    def release(self, block: BlockIndex | int) -> None:
        """Undoes one `acquire`."""
        with self._ledger.lock:
            region = self._ledger.regions[region_of(block)]
            assert region.num_users > 0, block
            region.num_users -= 1

    @contextlib.contextmanager
    def acquired(self, block: BlockIndex | int) -> Iterator[None]:
        """`acquire` and `release` around a `with`."""
        self.acquire(block)
        try:
            yield
        finally:
            self.release(block)

    def evict(self, block: BlockIndex | int) -> None:
        """Forgets a block and gives its memory back to the system.

        JAX holds what it computed with until a moment after the result is there:
        whoever is refused tries again.

        Raises:
          InUseError: array views of it live, or somebody acquired it.
        """
        region_index = region_of(block)
        if self._ledger.regions[region_index].is_lent:
            gc.collect()  # Views in reference cycles are not used by anybody.
        with self._ledger.lock:
            region = self._ledger.regions[region_index]
            if region.is_lent or region.num_users or region.arriving:
                raise InUseError(
                    f"{self._name(block)} is in use "
                    f"({region.num_users} readers, {len(region.arriving)} arriving "
                    f"chunks, {'some' if region.is_lent else 'no'} array views): "
                    "evict it when they are done"
                )
            assert region.state is not RegionState.VERIFYING, block
            region.reset()
            self._arena.discard(
                self.chunks.region_offset_bytes(region_index),
                self.chunks.region_sizes_bytes[region_index],
            )

    def reserve_executables(self, size_bytes: int) -> None:
        """Makes region 0 that large and empty; chunk indices of blocks shift by it.

        To be called before a multicast is joined, not during one. Does nothing if the
        region has that size: what has landed is kept.

        Raises:
          ConfigError: the arena has not that much room.
        """
        if size_bytes == self.chunks.region_sizes_bytes[EXECUTABLES_REGION]:
            return
        table = ChunkTable(
            (size_bytes, *self._manifest.block_sizes_bytes),
            self.chunks.chunk_size_bytes,
        )
        if table.size_bytes > self._arena.size_bytes:
            room = self._arena.size_bytes - self.chunks.region_offset_bytes(0)
            raise ConfigError(
                f"executables of {format_size(size_bytes)} do not fit into the "
                f"{format_size(room)} kept for them: compile for fewer buckets"
            )
        self._ledger.resize(table, EXECUTABLES_REGION)

    def place_executables(self, bundle: bytes | memoryview) -> None:
        """Puts the executables where others can be sent them.

        Raises:
          ConfigError: the arena has not that much room.
        """
        self.reserve_executables(len(bundle))
        self._executables()[:] = bundle
        with self._ledger.lock:
            region = self._ledger.regions[EXECUTABLES_REGION]
            region.fill()
            region.state = RegionState.READY

    @property
    def has_executables(self) -> bool:
        """Whether all bytes of executables are here, verified or not."""
        state = self._ledger.regions[EXECUTABLES_REGION].state
        return state in (RegionState.VERIFYING, RegionState.READY)

    def verified_executables(self, sha256: str) -> bytes | None:
        """The executables that landed, after their digest was checked.

        None if they are not here any more: others had room reserved meanwhile.

        Args:
          sha256: the digest that the manager named, hexadecimal.

        Raises:
          IntegrityError: their digest is another; none of their chunks is held now.
        """
        with self._ledger.lock:
            region = self._ledger.regions[EXECUTABLES_REGION]
            memory = self._executables()
        if region.state not in (RegionState.VERIFYING, RegionState.READY):
            return None
        data = bytes(memory)
        actual = hashlib.sha256(data).hexdigest()
        with self._ledger.lock:
            if region is not self._ledger.regions[EXECUTABLES_REGION]:
                return None
            if region.state is RegionState.VERIFYING:
                name = f"{self._manifest.model_name}: executables"
                region.settle(name, actual, sha256)
        return data

    def close(self, timeout_s: float = 1.0) -> None:
        """Unmaps the arena, when its last views have died.

        Raises:
          InUseError: views of it are alive after `timeout_s`.
        """
        self._arena.close(timeout_s)

    def _slot(
        self, chunk: ChunkIndex | int, lend: Callable[[int, int], _Place]
    ) -> _Place | None:
        place = self.chunks.chunk(chunk)
        if not self._ledger.claim(place):
            return None
        try:
            return lend(place.offset_bytes, place.size_bytes)
        except BaseException:
            self._ledger.abandon(place)
            raise

    def _executables(self) -> memoryview:
        return self._arena.memory(
            self.chunks.region_offset_bytes(EXECUTABLES_REGION),
            self.chunks.region_sizes_bytes[EXECUTABLES_REGION],
        )

    def _name(self, block: BlockIndex | int) -> str:
        return f"block {block} of {self._manifest.model_name}"
