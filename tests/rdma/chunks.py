"""Chunks whose bytes anybody can check, and a landing that does."""

import random

from jscale.transport.base import Landing

PLAN = 7
CHUNK_SIZE_BYTES = 1 << 18
NUM_CHUNKS = 16


def bytes_of(chunk: int) -> bytes:
    """What that chunk holds."""
    return random.Random(chunk).randbytes(CHUNK_SIZE_BYTES)


BYTES = [bytes_of(chunk) for chunk in range(NUM_CHUNKS)]


class CheckedShelf(Landing):
    """Takes each chunk any number of times, and compares what landed.

    Its memory is made by the caller, who may register it. Events go to the recorder:
    ("right" or "wrong" or "failed", chunk).
    """

    def __init__(self, recorder, memory):
        self.recorder = recorder
        self.memory = memoryview(memory)
        self.taken = set()

    def place(self, chunk):
        start = chunk * CHUNK_SIZE_BYTES
        return self.memory[start : start + CHUNK_SIZE_BYTES]

    def slot(self, connection, chunk):
        if chunk in self.taken:
            return None
        self.taken.add(chunk)
        self.place(chunk)[:] = bytes(CHUNK_SIZE_BYTES)
        return self.place(chunk)

    def landed(self, connection, chunk):
        how = "right" if self.place(chunk) == BYTES[chunk] else "wrong"
        self.taken.remove(chunk)
        self.recorder.events.put((how, chunk))

    def failed(self, connection, chunk):
        self.taken.remove(chunk)
        self.recorder.events.put(("failed", chunk))
