"""A peer that writes chunks until it is killed: python -m tests.rdma.writer."""

import mmap
import sys

from jscale.core.ids import WorkerId
from jscale.transport.base import Hello
from jscale.transport.rdma_options import RdmaOptions
from jscale.transport.registry import open_transport
from tests.rdma.chunks import BYTES, CHUNK_SIZE_BYTES, NUM_CHUNKS, PLAN
from tests.transport.conftest import Recorder


def run(address: str, device: str) -> None:
    memory = mmap.mmap(-1, NUM_CHUNKS * CHUNK_SIZE_BYTES)
    memory[:] = b"".join(BYTES)
    view = memoryview(memory)
    options = RdmaOptions(devices=(device,))
    transport = open_transport(
        "rdma://", Hello(WorkerId("writer"), b"secret"), rdma=options
    )
    transport.register(view)
    connection = transport.connect(address, Recorder())
    while True:
        for chunk in range(NUM_CHUNKS):
            start = chunk * CHUNK_SIZE_BYTES
            connection.write_chunk(PLAN, chunk, view[start : start + CHUNK_SIZE_BYTES])


if __name__ == "__main__":
    run(*sys.argv[1:])
