"""What may happen to bytes on a bad day, drawn from a seed."""

import random
from collections.abc import Iterator


def mutations(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """So many byte strings that are nearly `data`, and are not; the same each time."""
    rng = random.Random(f"{seed} {data.hex()}")
    while count:
        changed = data
        for _ in range(rng.choice((1, 1, 1, 2, 8))):
            changed = _change(changed, rng)
        if changed != data:
            count -= 1
            yield changed


def _change(data: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randint(0, len(data)) for _ in range(2))
    match rng.randrange(7):
        case 0:  # A bit.
            where = rng.randrange(max(1, len(data)))
            bit = bytes([data[where] ^ 1 << rng.randrange(8)]) if data else b"\1"
            return data[:where] + bit + data[where + 1 :]
        case 1:  # Other bytes in the place of some.
            return data[:start] + rng.randbytes(end - start) + data[end:]
        case 2:  # One of the numbers that programs get wrong.
            size = rng.choice((1, 2, 4, 8))
            number = rng.choice((0, 1, (1 << 8 * size - 1) - 1, (1 << 8 * size) - 1))
            where = rng.randrange(max(1, len(data) - size + 1))
            edge = number.to_bytes(size, "little")
            return data[:where] + edge + data[where + size :]
        case 3:  # The end is missing.
            return data[:start]
        case 4:  # The middle is missing.
            return data[:start] + data[end:]
        case 5:  # Something came in between.
            return data[:start] + rng.randbytes(rng.randint(1, 64)) + data[start:]
        case _:  # Some of it came twice.
            return data[:end] + data[start:]
