"""Units, and how people read them."""

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_US = 1_000


def format_size(size_bytes: float) -> str:
    """The size as people read it: `1.5 MiB`."""
    for unit, scale in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def mbit_to_bytes_per_s(mbit_per_s: float) -> float:
    """Bytes per second of a link rated in (decimal) megabits per second."""
    return mbit_per_s * 1e6 / 8


def round_up(value: int, multiple: int) -> int:
    """The least multiple of `multiple` that is not under `value`."""
    return -(-value // multiple) * multiple
