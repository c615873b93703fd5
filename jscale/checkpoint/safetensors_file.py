"""One safetensors file: a table of tensors, and their bytes where they lie.

Read by hand, for three things that matter here: bfloat16 without torch, no copy, and a
truncated file noticed before anything is converted.

Source: the format as described in huggingface/safetensors, README, "Format".
"""

import dataclasses
import functools
import json
import math
import mmap
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from jscale.core.errors import CheckpointError
from jscale.core.units import MIB

_HEADER_SIZE_BYTES_MAX = 100 * MIB
"""What the format allows; a larger figure means that the file is something else."""

_DTYPES: Mapping[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """Where a tensor is in its file."""

    dtype: str
    shape: tuple[int, ...]
    start_bytes: int
    end_bytes: int


class SafetensorsFile:
    """An open safetensors file; unchanged once made, so any thread may read it."""

    def __init__(self, path: pathlib.Path) -> None:
        """Reads the table.

        Raises:
          CheckpointError: the file is missing, truncated, or not safetensors.
        """
        self.path = path
        try:
            with path.open("rb") as file:
                self.size_bytes = file.seek(0, 2)
                file.seek(0)
                length = int.from_bytes(file.read(8), "little")
                header = file.read(min(length, _HEADER_SIZE_BYTES_MAX))
        except OSError as error:
            raise CheckpointError(
                f"{path}: {error.strerror or error}; fetch the file, "
                "or give the folder of a whole model"
            ) from error
        if self.size_bytes < 8 + length and length <= _HEADER_SIZE_BYTES_MAX:
            raise self._truncated(8 + length)
        self._data_start = 8 + length
        self.tensors = self._table(header)

    def read(self, name: str) -> np.ndarray:
        """A tensor as it lies in the file: read-only, and paged in as it is used.

        Raises:
          CheckpointError: jscale does not convert its element type.
        """
        stored = self.tensors[name]
        if stored.dtype not in _DTYPES:
            raise CheckpointError(
                f"{self.path}: {name} has element type {stored.dtype}, supported are "
                f"{', '.join(_DTYPES)}: convert the unquantised model"
            )
        dtype = _DTYPES[stored.dtype]
        values = np.frombuffer(
            self._mapping,
            dtype,
            count=math.prod(stored.shape),
            offset=self._data_start + stored.start_bytes,
        )
        return values.reshape(stored.shape)

    @functools.cached_property
    def _mapping(self) -> mmap.mmap:
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def _table(self, header: bytes) -> Mapping[str, StoredTensor]:
        try:
            table = json.loads(header)
            table.pop("__metadata__", None)
            tensors = {
                str(name): StoredTensor(
                    str(entry["dtype"]),
                    tuple(int(extent) for extent in entry["shape"]),
                    *(int(offset) for offset in entry["data_offsets"]),
                )
                for name, entry in table.items()
            }
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(
                f"{self.path}: not a safetensors file ({error}); fetch it again"
            ) from error
        for name, stored in tensors.items():
            self._check(name, stored)
        return tensors

    def _check(self, name: str, stored: StoredTensor) -> None:
        """Makes sure that the tensor's bytes are there, and as many as its shape."""
        if self._data_start + stored.end_bytes > self.size_bytes:
            raise self._truncated(self._data_start + stored.end_bytes)
        size = stored.end_bytes - stored.start_bytes
        dtype = _DTYPES.get(stored.dtype)
        expected = math.prod(stored.shape) * dtype.itemsize if dtype else size
        if (
            stored.start_bytes < 0
            or size != expected
            or min(stored.shape, default=0) < 0
        ):
            raise CheckpointError(
                f"{self.path}: {name} of shape {stored.shape} takes {size} bytes, "
                f"expected {expected}; the file is damaged, fetch it again"
            )

    def _truncated(self, size_bytes: int) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: truncated: {self.size_bytes} bytes of at least "
            f"{size_bytes}; fetch the file again"
        )
