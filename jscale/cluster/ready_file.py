"""How a process that took a free port tells whoever started it."""

import os
from pathlib import Path


def write_ready_file(path: Path, address: str) -> None:
    """The address, whole or not at all: a reader never sees half of it."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(address + "\n")
    partial.replace(path)
