import mmap

import pytest

from jscale.transport.checksum import crc32c

CHECK = 0xE3069283
"""CRC32C of `123456789` (RFC 3720, and every table of CRCs)."""


@pytest.mark.parametrize(
    "buffer", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))]
)
def test_any_buffer_gives_the_published_check_value(buffer):
    assert crc32c(buffer(b"123456789")) == CHECK


def test_the_header_follows_the_payload():
    assert crc32c(b"12345", b"6789") == CHECK
    assert crc32c(memoryview(bytearray()), b"123456789") == CHECK


def test_a_mapping_can_be_closed_after_its_checksum():
    with mmap.mmap(-1, 4096) as mapping, memoryview(mapping) as view:
        view[:9] = b"123456789"
        with view[:9] as digits:
            assert crc32c(digits) == CHECK
