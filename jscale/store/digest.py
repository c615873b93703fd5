"""The digest that names a block's bytes: XXH3, 128 bits, as fast as memory is read.

It tells bytes that were damaged from those that were written, as a digest of 128 bits
does; it is not made to withstand somebody who forges them. Whoever may write a block
store may write its manifest, too, and blocks are taken only from workers that know the
cluster's token. Executables, which are run, have SHA-256.
"""

import xxhash

DIGEST_LENGTH = 32
"""Hexadecimal digits."""

BlockDigest = xxhash.xxh3_128
"""`update(data)`, piece by piece, then `hexdigest()`."""


def digest_of(data: bytes | bytearray | memoryview) -> str:
    """The digest of these bytes, hexadecimal."""
    return BlockDigest(data).hexdigest()
