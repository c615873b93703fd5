"""The process that receives."""

import mmap
import os
import resource
import socket
import threading

from jscale.core.ids import WorkerId
from jscale.core.units import KIB
from jscale.transport import checksum
from jscale.transport.base import Handler, Hello, Landing
from jscale.transport.checksum import crc32c
from jscale.transport.framing import HEAD_SIZE_BYTES
from jscale.transport.registry import open_transport
from jscale.transport.sockets import CONGESTION, receive_into

PATIENCE_S = 60.0
BARE = ("sockets", "checked")
"""Loops of a few lines: the bytes alone, and each chunk after its checksum."""


class Recorder(Handler, Landing):
    """Has chunks written to a memory, and counts those that landed there."""

    def __init__(self, memory):
        self._memory = memory
        self._all_here = threading.Event()
        self._left = 0
        self._chunk_size_bytes = 0
        self._num_failed = 0

    def expect(self, chunk_size_bytes):
        """All of the memory, in chunks of that size, from now on."""
        self._chunk_size_bytes = chunk_size_bytes
        self._left = -(-len(self._memory) // chunk_size_bytes)
        self._all_here.clear()

    def wait(self, timeout_s):
        """Returns when every chunk is here."""
        if not self._all_here.wait(timeout_s) or self._num_failed:
            raise SystemExit(f"{self._left} chunks missing, {self._num_failed} damaged")

    def slot(self, connection, chunk):
        """See `Landing`."""
        del connection
        start = chunk * self._chunk_size_bytes
        return self._memory[start : start + self._chunk_size_bytes]

    def landed(self, connection, chunk):
        """See `Landing`."""
        del connection, chunk
        self._left -= 1
        if not self._left:
            self._all_here.set()

    def failed(self, connection, chunk):
        """See `Landing`."""
        del connection, chunk
        self._num_failed += 1

    def opened(self, connection):
        """See `Handler`."""

    def landing(self, plan):
        """See `Handler`."""
        del plan
        return self

    def message(self, connection, header, payload):
        """See `Handler`."""

    def announced(self, connection, plan, held):
        """See `Handler`."""

    def asked(self, connection, plan, chunk):
        """See `Handler`."""

    def lost(self, connection, error):
        """See `Handler`."""


def serve(pipe, choice, size_bytes, processors, *, checks):
    """Receives what the other process says, until it says nothing more.

    Args:
      pipe: to the other process.
      choice: the transport beside `tcp://`, and its address.
      size_bytes: of the memory.
      processors: those to use; None: all.
      checks: compute checksums.
    """
    if not checks:
        skip_checksums()
    if processors:
        os.sched_setaffinity(0, processors)
    memory = memoryview(mmap.mmap(-1, size_bytes))
    recorder = Recorder(memory)
    host = choice.address.partition("://")[2].rpartition(":")[0]
    schemes = dict.fromkeys(("tcp", choice.scheme))
    transports = {
        scheme: open_side(scheme, "receiver", choice, memory) for scheme in schemes
    }
    with bare_socket() as server:
        server.bind((host, 0))
        server.listen(1)
        addresses = {
            scheme: transport.listen(f"{scheme}://{host}:0", recorder).address
            for scheme, transport in transports.items()
        }
        pipe.send({"sockets": server.getsockname(), **addresses})
        with server.accept()[0] as bare:
            while asked := pipe.recv():
                way, chunk_size_bytes = asked
                recorder.expect(chunk_size_bytes)
                began_s = processor_seconds()
                pipe.send("ready")
                if way in BARE:
                    _receive_bare(bare, memory, chunk_size_bytes, way)
                else:
                    recorder.wait(PATIENCE_S)
                pipe.send(processor_seconds() - began_s)
    for transport in transports.values():
        transport.close()


def open_side(scheme, name, choice, memory):
    """A transport that knows the memory."""
    transport = open_transport(
        f"{scheme}://", Hello(WorkerId(name)), rdma=choice.options
    )
    transport.register(memory)
    return transport


def bare_socket():
    """A socket as the system makes it, but for the congestion control of `tcp://`."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION)
    return made


def skip_checksums():
    """From now on nobody in this process computes those of chunks; tells their cost."""
    real = checksum.checksums

    class Skipping:
        @staticmethod
        def crc32c(data, crc):
            return real.crc32c(data, crc) if memoryview(data).nbytes < 16 * KIB else 0

    checksum.checksums = Skipping


def processor_seconds():
    """Of this process, in user and kernel mode, so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _receive_bare(bare, memory, chunk_size_bytes, way):
    head = bytearray(HEAD_SIZE_BYTES)
    for start in range(0, len(memory), chunk_size_bytes):
        chunk = memory[start : start + chunk_size_bytes]
        if way == "checked":
            receive_into(bare, memoryview(head))
        receive_into(bare, chunk)
        if way == "checked" and crc32c(chunk) != int.from_bytes(head, "little"):
            raise SystemExit("a damaged chunk")
