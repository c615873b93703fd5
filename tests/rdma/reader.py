"""A peer that takes chunks until it is killed: python -m tests.rdma.reader."""

import json
import mmap
import sys

from jscale.core.ids import WorkerId
from jscale.transport.base import Hello
from jscale.transport.rdma_options import RdmaOptions
from jscale.transport.registry import open_transport
from tests.rdma.chunks import CHUNK_SIZE_BYTES, NUM_CHUNKS, PLAN, CheckedShelf
from tests.transport.conftest import Recorder


def run(device: str) -> None:
    recorder = Recorder()
    memory = mmap.mmap(-1, NUM_CHUNKS * CHUNK_SIZE_BYTES)
    recorder.landings[PLAN] = CheckedShelf(recorder, memory)
    options = RdmaOptions(devices=(device,))
    transport = open_transport(
        "rdma://", Hello(WorkerId("reader"), b"secret"), rdma=options
    )
    transport.register(memoryview(memory))
    address = transport.listen("rdma://127.0.0.1:0", recorder).address
    print(json.dumps(address), flush=True)
    while True:
        event = recorder.events.get()
        if event[0] == "right":
            print(json.dumps(event[1]), flush=True)


if __name__ == "__main__":
    run(*sys.argv[1:])
