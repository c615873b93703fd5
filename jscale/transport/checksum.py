"""CRC32C of any buffer, without copying it."""

from collections.abc import Callable
from typing import cast

from awscrt import checksums

Buffer = bytes | bytearray | memoryview
Checksum = Callable[[Buffer, bytes], int]
"""The checksum of a payload followed by a header."""


def crc32c(payload: Buffer, header: bytes = b"") -> int:
    """The CRC32C of `payload`, which must be contiguous, and then `header`.

    Nothing is copied, and other threads go on. With AVX-512 25 GB/s from memory, 55
    from a processor's cache (google-crc32c, which takes eight bytes at a time: 12, 26).
    """
    return extend_crc32c(extend_crc32c(0, payload), header)


def extend_crc32c(crc: int, data: Buffer) -> int:
    """The CRC32C of what `crc` is that of, and then `data`."""
    return cast(int, checksums.crc32c(data, crc))
