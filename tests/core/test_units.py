"""Units as people read and write them."""

import pytest

from jscale.core.units import format_size, mbit_to_bytes_per_s, round_up


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (64 << 20, "64.0 MiB"),
        (3 << 30, "3.0 GiB"),
    ],
)
def test_sizes_are_read_in_binary_units(size_bytes, text):
    assert format_size(size_bytes) == text


def test_link_rates_are_decimal():
    assert mbit_to_bytes_per_s(400) == 50_000_000


def test_rounding_up_gives_the_least_multiple_not_under():
    for multiple in (1, 3, 256):
        for value in range(600):
            found = round_up(value, multiple)
            assert found % multiple == 0
            assert value <= found < value + multiple
