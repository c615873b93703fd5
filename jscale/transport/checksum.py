"""CRC32C of any buffer, without copying it."""

import ctypes
from collections.abc import Callable
from typing import cast

import google_crc32c

Buffer = bytes | bytearray | memoryview
Checksum = Callable[[Buffer, bytes], int]
"""The checksum of a payload followed by a header."""


def crc32c(payload: Buffer, header: bytes = b"") -> int:
    """The CRC32C of `payload`, which must be contiguous, and then `header`.

    About 30 GB/s, nothing is copied.
    """
    crc = cast(int, google_crc32c.extend(0, _without_release(payload)))
    return cast(int, google_crc32c.extend(crc, header)) if header else crc


def _without_release(data: Buffer) -> object:
    """The same bytes as an object without a release hook, which memoryviews have.

    google_crc32c takes no other. ctypes wants them writable; numpy does not, but
    takes 20 MB where nothing else needs it.
    """
    if isinstance(data, bytes):
        return data
    view = memoryview(data)
    if not view.nbytes:
        return b""
    if not view.readonly:
        return (ctypes.c_char * view.nbytes).from_buffer(view)
    import numpy as np

    return np.frombuffer(view, np.uint8)
