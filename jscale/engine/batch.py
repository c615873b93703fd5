"""A micro-batch: the rows of one step, as they travel from stage to stage."""

import dataclasses
import struct

import numpy as np
import numpy.typing as npt

from jscale.core.errors import TransportError

_HEADER = struct.Struct("<III")
_ROW_FIELDS = {
    "token_ids": np.dtype("<i4"),
    "positions": np.dtype("<i4"),
    "table_index": np.dtype("<i4"),
    "temperature": np.dtype("<f4"),
    "top_k": np.dtype("<i4"),
    "top_p": np.dtype("<f4"),
    "seed": np.dtype("<u4"),
    "sampled": np.dtype("?"),
}
_ROW_SIZE_BYTES = sum(dtype.itemsize for dtype in _ROW_FIELDS.values())


@dataclasses.dataclass(frozen=True, eq=False)
class StepBatch:
    """Rows in order: a prefill chunk is several rows of one sequence, a decode one row.

    All arrays but `page_tables` are `[num_rows]`. `page_tables` is `[sequences, pages]`
    and holds virtual pages, 0 where a sequence has none; `table_index` says which of
    them a row uses. Only rows with `sampled` give a token. The arrays must not change.
    """

    token_ids: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    table_index: npt.NDArray[np.int32]
    page_tables: npt.NDArray[np.int32]
    temperature: npt.NDArray[np.float32]
    top_k: npt.NDArray[np.int32]
    top_p: npt.NDArray[np.float32]
    seed: npt.NDArray[np.uint32]
    sampled: npt.NDArray[np.bool_]

    @property
    def num_rows(self) -> int:
        """Tokens that the step computes."""
        return len(self.token_ids)

    @property
    def num_sampled(self) -> int:
        """Tokens that the step gives."""
        return int(np.count_nonzero(self.sampled))

    def to_bytes(self) -> bytes:
        """The batch for the wire."""
        parts = [_HEADER.pack(self.num_rows, *self.page_tables.shape)]
        for name, dtype in _ROW_FIELDS.items():
            parts.append(getattr(self, name).astype(dtype, copy=False).tobytes())
        parts.append(self.page_tables.astype("<i4", copy=False).tobytes())
        return b"".join(parts)

    @staticmethod
    def from_bytes(payload: bytes | bytearray | memoryview) -> "StepBatch":
        """The batch that `to_bytes` gave; its arrays are views of `payload`.

        Raises:
          TransportError: the bytes are not those of a batch.
        """
        size = len(payload)
        if size < _HEADER.size:
            raise TransportError(
                f"a micro-batch of {size} bytes has no header; drop it"
            )
        num_rows, num_tables, num_pages = _HEADER.unpack_from(payload)
        wanted = _HEADER.size + num_rows * _ROW_SIZE_BYTES + num_tables * num_pages * 4
        if size != wanted:
            raise TransportError(
                f"a micro-batch of {num_rows} rows has {size} bytes, expected "
                f"{wanted}; drop it"
            )
        arrays: dict[str, npt.NDArray[np.generic]] = {}
        offset = _HEADER.size
        for name, dtype in _ROW_FIELDS.items():
            arrays[name] = np.frombuffer(payload, dtype, num_rows, offset)
            offset += arrays[name].nbytes
        tables = np.frombuffer(payload, "<i4", num_tables * num_pages, offset)
        arrays["page_tables"] = tables.reshape(num_tables, num_pages)
        batch = StepBatch(**arrays)  # type: ignore[arg-type]
        index = batch.table_index
        if num_rows == 0 or index.min() < 0 or index.max() >= num_tables:
            raise TransportError(
                f"a micro-batch of {num_rows} rows names page tables that are not "
                f"among its {num_tables}; drop it"
            )
        return batch
