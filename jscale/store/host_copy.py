"""Copies within host memory that let other threads go on."""

import numpy as np


def copy_bytes(target: memoryview, source: memoryview) -> None:
    """Copies all of `source` over the start of `target`.

    Assigning one memoryview to the other would hold the interpreter lock meanwhile:
    0.4 ms for a chunk of 4 MiB, in which no thread receives.
    """
    places = np.frombuffer(target, np.uint8, source.nbytes)
    places[:] = np.frombuffer(source, np.uint8)
