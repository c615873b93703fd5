"""The rows of a step as one array: a call with few arguments is a cheap call.

Columns of `[bucket, 7 + pages]` int32: token id, position, top_k, seed, sampled,
temperature and top_p (the bits of their 32-bit values), then the physical page table.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt

from jscale.core.errors import TransportError
from jscale.engine.batch import StepBatch

NUM_ROW_FIELDS = 7


@dataclasses.dataclass(frozen=True)
class RowFields:
    """The columns of rows, inside an executable."""

    token_ids: Int[Array, "batch"]
    positions: Int[Array, "batch"]
    top_k: Int[Array, "batch"]
    seed: UInt[Array, "batch"]
    sampled: Bool[Array, "batch"]
    temperature: Float[Array, "batch"]
    top_p: Float[Array, "batch"]
    page_table: Int[Array, "batch pages"]

    @staticmethod
    def of(rows: Int[Array, "batch fields"]) -> "RowFields":
        """Takes rows apart again."""
        bitcast = lax.bitcast_convert_type
        return RowFields(
            token_ids=rows[:, 0],
            positions=rows[:, 1],
            top_k=rows[:, 2],
            seed=bitcast(rows[:, 3], jnp.uint32),
            sampled=rows[:, 4] != 0,
            temperature=bitcast(rows[:, 5], jnp.float32),
            top_p=bitcast(rows[:, 6], jnp.float32),
            page_table=rows[:, NUM_ROW_FIELDS:],
        )


def pack_rows(
    batch: StepBatch,
    page_map: npt.NDArray[np.int32],
    *,
    bucket: int,
    pages_per_sequence: int,
) -> npt.NDArray[np.int32]:
    """The rows of a batch, with this worker's physical pages.

    Rows after `num_rows` are zeros: they write to the padding page and give nothing.

    Raises:
      TransportError: the batch names pages that the replica lacks, or tables of
        another length than this worker's settings give.
    """
    num_rows, num_pages = batch.num_rows, batch.page_tables.shape[1]
    if num_pages != pages_per_sequence:
        raise TransportError(
            f"a micro-batch has tables of {num_pages} pages, expected "
            f"{pages_per_sequence}; close the pipeline"
        )
    if batch.page_tables.min() < 0 or batch.page_tables.max() >= len(page_map):
        raise TransportError(
            f"a micro-batch names pages {batch.page_tables.min()} to "
            f"{batch.page_tables.max()}, the replica has 0 to {len(page_map) - 1}; "
            "close the pipeline"
        )
    rows = np.zeros((bucket, NUM_ROW_FIELDS + num_pages), np.int32)
    rows[:num_rows, 0] = batch.token_ids
    rows[:num_rows, 1] = batch.positions
    rows[:num_rows, 2] = batch.top_k
    rows[:num_rows, 3] = batch.seed.view(np.int32)
    rows[:num_rows, 4] = batch.sampled
    rows[:num_rows, 5] = batch.temperature.view(np.int32)
    rows[:num_rows, 6] = batch.top_p.view(np.int32)
    rows[:num_rows, NUM_ROW_FIELDS:] = page_map[batch.page_tables][batch.table_index]
    return rows
