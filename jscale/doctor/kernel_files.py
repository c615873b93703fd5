"""Where the kernel tells what there is; tests put their own trees there."""

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class KernelFiles:
    """Roots of the file systems that the kernel fills."""

    sysfs: Path = Path("/sys")
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")


REAL = KernelFiles()
"""Those of this machine."""


def read(path: Path) -> str:
    """What is in a file, without spaces around; nothing where it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def number(path: Path) -> int:
    """The number in a file; 0 where there is none."""
    text = read(path)
    return int(text) if text.isdigit() else 0
