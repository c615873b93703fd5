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

    About 30 GB/s. google_crc32c takes only objects without a release hook, which
    memoryviews have; a ctypes array over the same bytes has none.
    """
    crc = cast(int, google_crc32c.extend(0, _without_release(payload)))
    return cast(int, google_crc32c.extend(crc, header)) if header else crc


def _without_release(data: Buffer) -> object:
    if isinstance(data, bytes):
        return data
    view = memoryview(data)
    if view.readonly or not view.nbytes:
        return view.tobytes()
    return (ctypes.c_char * view.nbytes).from_buffer(view)
