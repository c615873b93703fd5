"""Runs micro-batches through the blocks that a worker holds."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from jscale.core.errors import TransportError
from jscale.core.units import NS_PER_S
from jscale.engine.batch import StepBatch
from jscale.engine.config import TILE_ROWS
from jscale.engine.executables import ExecutableSet
from jscale.engine.kv_copy import (
    KvCopySpec,
    kv_bytes_per_token,
    kv_copy_specs,
    kv_piece_shape,
)
from jscale.engine.pages import PADDING_PAGE
from jscale.engine.program import ExecutableSpec, carrying_dtype
from jscale.engine.rows import pack_rows
from jscale.models.bits import as_bits


@dataclasses.dataclass(frozen=True)
class SampledRows:
    """What the last stage gives: a token and its logprob for every row of the batch.

    Rows that the batch does not want sampled have tokens that mean nothing.
    """

    tokens: npt.NDArray[np.int32]
    logprobs: npt.NDArray[np.float32]


Activations = npt.NDArray[Any]
"""`[num_rows, embed]` in the compute dtype: what one stage gives the next."""


@dataclasses.dataclass(frozen=True)
class Emulation:
    """Waits that make a stage take at least so long: for demos without accelerators."""

    layer_ns: int = 0
    now_ns: Callable[[], int] = time.monotonic_ns
    sleep_s: Callable[[float], None] = time.sleep


class StageExecutor:
    """The blocks of a worker, their KV pools, and the executables that run them.

    A pool belongs to a block, not to a replica: replicas share it page by page.
    Mutable; owned by the device thread: no method may be called from two threads.
    """

    def __init__(
        self, executables: ExecutableSet, emulation: Emulation | None = None
    ) -> None:
        """An executor without blocks; pools for all of them are reserved."""
        self._executables = executables
        self._program = executables.program
        self._emulation = emulation or Emulation()
        self._leaves: dict[int, tuple[jax.Array, ...]] = {}
        self._k_pools = self._make_pools()
        self._v_pools = self._make_pools()

    @property
    def activation_dtype(self) -> np.dtype[Any]:
        """What activations are made of, on the wire too."""
        return np.dtype(jnp.dtype(self._program.engine.compute_dtype))

    @property
    def num_blocks(self) -> int:
        """Blocks of the model; each has a pool here, held or not."""
        return self._program.partition.num_blocks

    def set_block(self, index: int, leaves: Sequence[jax.Array]) -> None:
        """Makes a block runnable; its leaves must not change until it is dropped."""
        assert 0 <= index < self._program.partition.num_blocks, index
        self._leaves[index] = tuple(as_bits(leaf) for leaf in leaves)

    def drop_block(self, index: int) -> None:
        """Forgets the leaves of a block; its pages stay as they are."""
        self._leaves.pop(index, None)

    def holds(self, first_block: int, num_blocks: int) -> bool:
        """Whether all blocks of a stage are runnable."""
        stage = range(first_block, first_block + num_blocks)
        return all(index in self._leaves for index in stage)

    @property
    def can_copy_kv(self) -> bool:
        """Whether KV can be read and written: the executables for it are ready."""
        return self._executables.holds(kv_copy_specs(self._program))

    def kv_bytes_per_token(self, block: int) -> int:
        """What the keys and values of a token are in a block."""
        blocks = self._program.partition.blocks
        return kv_bytes_per_token(self._program, blocks[block].num_layers)

    def kv_piece_pages(self, block: int) -> int:
        """Pages of a block that one call reads or writes."""
        return self._kv_piece_shape(block)[2]

    def read_kv(self, block: int, pages: Sequence[int]) -> bytes:
        """The KV of a block in at most a piece of physical pages, keys first."""
        piece = np.asarray(self._read_kv(block, pages))
        return piece[:, :, : len(pages)].tobytes()

    def write_kv(self, block: int, pages: Sequence[int], data: memoryview) -> None:
        """Puts what `read_kv` gave, maybe on another worker, into physical pages.

        Raises:
          TransportError: it is not as long as so many pages are; nothing was written.
        """
        shape = self._kv_piece_shape(block)
        piece = np.zeros(shape, self._k_pools[block].dtype)
        wanted = piece[:, :, : len(pages)]
        if len(data) != wanted.nbytes:
            raise TransportError(
                f"KV of {len(pages)} pages of block {block} has {len(data)} bytes, "
                f"expected {wanted.nbytes}; recompute it"
            )
        wanted[:] = np.frombuffer(data, piece.dtype).reshape(wanted.shape)
        self._write_kv(block, pages, piece)

    def copy_kv(
        self, block: int, source_pages: Sequence[int], target_pages: Sequence[int]
    ) -> None:
        """Copies at most a piece of physical pages into others of this worker."""
        self._write_kv(block, target_pages, self._read_kv(block, source_pages))

    def run(
        self,
        first_block: int,
        num_blocks: int,
        batch: StepBatch,
        page_map: npt.NDArray[np.int32],
        x: Activations | None = None,
    ) -> Activations | SampledRows:
        """Runs a batch through a stage and waits for the result.

        The blocks must be held and their executables ready. Where the whole model is
        run and its fused executable is ready, that is used; the result is the same,
        bit for bit.

        Args:
          first_block: of the stage.
          num_blocks: of the stage.
          batch: the rows. Batches of a sequence must come in the order of its tokens.
          page_map: virtual page -> physical page, for the replica of the batch.
          x: what the stage before made of the batch; None for the first stage.

        Returns:
          Sampled rows if the stage has the model's last block, else activations.

        Raises:
          TransportError: the batch or the activations are not what this worker's
            settings and the replica's pages allow; nothing was computed.
        """
        start_ns = self._emulation.now_ns()
        blocks = self._program.partition.blocks[first_block : first_block + num_blocks]
        assert len(blocks) == num_blocks >= 1, (first_block, num_blocks)
        assert self.holds(first_block, num_blocks), (first_block, num_blocks)
        bucket = self._bucket_for(batch)
        rows = pack_rows(
            batch,
            page_map,
            bucket=bucket,
            pages_per_sequence=self._program.engine.pages_per_sequence,
        )
        num_tiles = np.int32(-(-batch.num_rows // TILE_ROWS))
        value: Any = None if first_block == 0 else self._pad(x, batch, bucket)
        for group in self._groups(first_block, num_blocks, bucket):
            value = self._call(group, bucket, rows, num_tiles, value)
        result = _to_host(value, batch.num_rows)
        self._emulate(sum(block.num_layers for block in blocks), start_ns)
        return result

    def _read_kv(self, block: int, pages: Sequence[int]) -> jax.Array:
        pools = self._k_pools[block], self._v_pools[block]
        read = self._kv_copy(block, is_write=False)
        piece: jax.Array = read(*pools, self._padded(block, pages))
        return piece

    def _write_kv(self, block: int, pages: Sequence[int], piece: Any) -> None:
        pools = self._k_pools[block], self._v_pools[block]
        write = self._kv_copy(block, is_write=True)
        self._k_pools[block], self._v_pools[block] = write(
            *pools, self._padded(block, pages), piece
        )

    def _kv_copy(self, block: int, *, is_write: bool) -> Callable[..., Any]:
        num_layers = self._program.partition.blocks[block].num_layers
        found = self._executables.find(KvCopySpec(num_layers, is_write))
        assert found is not None, "asked without `can_copy_kv`"
        return found

    def _kv_piece_shape(self, block: int) -> tuple[int, ...]:
        blocks = self._program.partition.blocks
        return kv_piece_shape(self._program, blocks[block].num_layers)

    def _padded(self, block: int, pages: Sequence[int]) -> npt.NDArray[np.int32]:
        """The pages, and padding pages up to a whole piece."""
        padded = np.full(self.kv_piece_pages(block), PADDING_PAGE, np.int32)
        padded[: len(pages)] = pages
        return padded

    def _bucket_for(self, batch: StepBatch) -> int:
        """The bucket of a batch that may come from another worker."""
        engine = self._program.engine
        if batch.num_rows > engine.row_buckets[-1]:
            raise TransportError(
                f"a micro-batch has {batch.num_rows} rows, at most "
                f"{engine.row_buckets[-1]} are expected; close the pipeline"
            )
        return engine.bucket_for(batch.num_rows)

    def _pad(self, x: Activations | None, batch: StepBatch, bucket: int) -> Activations:
        """The activations, and zeros for the rows that only fill the tile."""
        width = self._program.model.hidden_size
        assert x is not None, "only the first stage starts from token ids"
        if x.shape != (batch.num_rows, width) or x.dtype != self.activation_dtype:
            raise TransportError(
                f"activations are {x.dtype}{list(x.shape)}, expected "
                f"{self.activation_dtype}{[batch.num_rows, width]}; close the pipeline"
            )
        padded = np.zeros((bucket, width), x.dtype)
        padded[: len(x)] = x
        return padded

    def _groups(
        self, first_block: int, num_blocks: int, bucket: int
    ) -> list[tuple[int, ...]]:
        """The blocks of each executable to call: all at once, or one by one."""
        stage = tuple(range(first_block, first_block + num_blocks))
        if num_blocks > 1 and self._executables.find(self._spec(stage, bucket)):
            return [stage]
        return [(index,) for index in stage]

    def _call(
        self,
        group: tuple[int, ...],
        bucket: int,
        rows: npt.NDArray[np.int32],
        num_tiles: np.int32,
        x: Any,
    ) -> Any:
        """Runs one executable; its pools are replaced by those it gives back."""
        spec = self._spec(group, bucket)
        executable = self._executables.find(spec)
        assert executable is not None, f"{spec.name} is not ready"
        made, k_pools, v_pools = executable(
            tuple(self._leaves[index] for index in group),
            tuple(self._k_pools[index] for index in group),
            tuple(self._v_pools[index] for index in group),
            rows,
            num_tiles,
            x,
        )
        for index, k_pool, v_pool in zip(group, k_pools, v_pools, strict=True):
            self._k_pools[index] = k_pool
            self._v_pools[index] = v_pool
        return made

    def _spec(self, group: tuple[int, ...], bucket: int) -> ExecutableSpec:
        blocks = self._program.partition.blocks
        return ExecutableSpec(tuple(blocks[index].kind for index in group), bucket)

    def _make_pools(self) -> list[jax.Array]:
        """A pool of zeros for each block, made by XLA: it can be donated at once."""
        dtype = carrying_dtype(self._program.engine.compute_dtype)
        return [
            jnp.zeros(self._program.kv_shape(block.kind), dtype)
            for block in self._program.partition.blocks
        ]

    def _emulate(self, num_layers: int, start_ns: int) -> None:
        """Waits until the layers have taken as long as they should."""
        end_ns = start_ns + num_layers * self._emulation.layer_ns
        wait_ns = end_ns - self._emulation.now_ns()
        if self._emulation.layer_ns and wait_ns > 0:
            self._emulation.sleep_s(wait_ns / NS_PER_S)


def _to_host(value: Any, num_rows: int) -> Activations | SampledRows:
    """The result of a stage once it is computed, without padding."""
    if isinstance(value, tuple):
        tokens, logprobs = value
        return SampledRows(
            np.asarray(tokens)[:num_rows], np.asarray(logprobs)[:num_rows]
        )
    return np.asarray(value)[:num_rows]
