"""Ways to move memory, from the sender's side: copied, by sockets, by transports."""

import abc
import contextlib
import dataclasses
import mmap
import multiprocessing
import os
import pathlib
import time

from transport_receiver import (
    BARE,
    Recorder,
    bare_socket,
    open_side,
    processor_seconds,
    serve,
    skip_checksums,
)

from jscale.core.ids import WorkerId
from jscale.transport.base import Hello
from jscale.transport.checksum import crc32c
from jscale.transport.framing import HEAD_SIZE_BYTES
from jscale.transport.registry import open_transport

PLAN = 1
PATIENCE_S = 60.0


@dataclasses.dataclass(frozen=True)
class Sample:
    """One time that all of the memory was moved.

    Attributes:
      size_bytes: of the memory.
      seconds: that it took.
      sender_cpu_s: processor time of the process that sent.
      receiver_cpu_s: of the one that received; 0 if it is the same.
      machine_cpu_s: of all processes of the machine, to hundredths.
    """

    size_bytes: int
    seconds: float
    sender_cpu_s: float
    receiver_cpu_s: float
    machine_cpu_s: float

    @property
    def bytes_per_s(self):
        """What it moved in a second."""
        return self.size_bytes / self.seconds

    @property
    def others(self):
        """How many processors others used meanwhile."""
        own_s = self.sender_cpu_s + self.receiver_cpu_s
        return max(0.0, self.machine_cpu_s - own_s) / self.seconds


class Way(abc.ABC):
    """Moves all of a memory, chunk by chunk."""

    name: str

    @abc.abstractmethod
    def move(self, chunk_size_bytes: int) -> Sample:
        """Returns when the other side has all of it, checked if it checks."""


class Copy(Way):
    """memcpy within this process."""

    name = "memcpy"

    def __init__(self, size_bytes):
        self._source, self._target = filled(size_bytes), filled(size_bytes)

    def move(self, chunk_size_bytes):
        """See `Way`."""
        with Watch() as watch:
            for start in range(0, len(self._source), chunk_size_bytes):
                end = start + chunk_size_bytes
                self._target[start:end] = self._source[start:end]
        return Sample(
            len(self._source), watch.seconds, watch.cpu_s, 0.0, watch.machine_cpu_s
        )


class InProcess(Way):
    """`mem://`, whose two ends are of one process: their time is one."""

    name = "mem"

    def __init__(self, size_bytes):
        self._memory = filled(size_bytes)
        self._recorder = Recorder(filled(size_bytes))
        hellos = (Hello(WorkerId(name)) for name in ("sender", "receiver"))
        self._transports = [open_transport("mem://", hello) for hello in hellos]
        listener = self._transports[1].listen("mem://0", self._recorder)
        ignored = Recorder(memoryview(b""))
        self._connection = self._transports[0].connect(listener.address, ignored)

    def move(self, chunk_size_bytes):
        """See `Way`."""
        self._recorder.expect(chunk_size_bytes)
        with Watch() as watch:
            send_all(self._connection, self._memory, chunk_size_bytes)
            self._recorder.wait(PATIENCE_S)
        return Sample(
            len(self._memory), watch.seconds, watch.cpu_s, 0.0, watch.machine_cpu_s
        )

    def close(self):
        """Ends both sides."""
        for transport in self._transports:
            transport.close()


class Sender:
    """This process's end of every way to the other process, and that process."""

    def __init__(self, choices, size_bytes, *, pins, checks):
        self._memory = filled(size_bytes)
        near, far = processors() if pins else (None, None)
        if not checks:
            skip_checksums()
        if near:
            os.sched_setaffinity(0, near)
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=serve,
            args=(theirs, choices[1], size_bytes, far),
            kwargs={"checks": checks},
            daemon=True,
        )
        self._process.start()
        addresses = self._pipe.recv()
        self._stack = contextlib.ExitStack()
        self._socket = self._stack.enter_context(bare_socket())
        self._socket.connect(addresses.pop("sockets"))
        self._connections = {}
        for scheme, address in addresses.items():
            transport = open_side(scheme, "sender", choices[0], self._memory)
            self._stack.callback(transport.close)
            ignored = Recorder(memoryview(b""))
            self._connections[scheme] = transport.connect(address, ignored)
        self._local = InProcess(size_bytes)
        self._stack.callback(self._local.close)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._pipe.send(None)
        self._stack.close()
        self._process.join()

    @property
    def ways(self):
        """Bare sockets first, then every transport that can be used."""
        between = (*BARE, *self._connections)
        return [self._local, *(_Between(name, self) for name in between)]

    def move(self, way, chunk_size_bytes):
        """Moves all of it to the other process."""
        self._pipe.send((way, chunk_size_bytes))
        self._pipe.recv()  # It is ready.
        with Watch() as watch:
            if way in BARE:
                send_bare(self._socket, self._memory, chunk_size_bytes, way)
            else:
                send_all(self._connections[way], self._memory, chunk_size_bytes)
            receiver_cpu_s = self._pipe.recv()
        return Sample(
            len(self._memory),
            watch.seconds,
            watch.cpu_s,
            receiver_cpu_s,
            watch.machine_cpu_s,
        )


class _Between(Way):
    """One of a sender's ways."""

    def __init__(self, name, sender):
        self.name = name
        self._sender = sender

    def move(self, chunk_size_bytes):
        """See `Way`."""
        return self._sender.move(self.name, chunk_size_bytes)


class Watch:
    """Time and processor time, of this process and of all, until it is left."""

    def __enter__(self):
        self._machine_s, self._cpu_s = machine_seconds(), processor_seconds()
        self._began_s = time.perf_counter()
        return self

    def __exit__(self, *error):
        self.seconds = time.perf_counter() - self._began_s
        self.cpu_s = processor_seconds() - self._cpu_s
        self.machine_cpu_s = machine_seconds() - self._machine_s


def machine_seconds():
    """Of all processors of the machine, in use since it started."""
    fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, soft_irq, *_ = map(int, fields)
    return (user + nice + system + irq + soft_irq) / os.sysconf("SC_CLK_TCK")


def send_all(connection, memory, chunk_size_bytes):
    """Hands every chunk over."""
    for chunk, start in enumerate(range(0, len(memory), chunk_size_bytes)):
        connection.write_chunk(PLAN, chunk, memory[start : start + chunk_size_bytes])


def send_bare(sock, memory, chunk_size_bytes, way):
    """Sends every chunk, by `checked` after a head with its checksum."""
    for start in range(0, len(memory), chunk_size_bytes):
        chunk = memory[start : start + chunk_size_bytes]
        if way == "checked":
            head = crc32c(chunk).to_bytes(HEAD_SIZE_BYTES, "little")
            sent = sock.sendmsg([head, chunk])
            assert sent >= HEAD_SIZE_BYTES, sent
            chunk = chunk[sent - HEAD_SIZE_BYTES :]
        sock.sendall(chunk)


def filled(size_bytes):
    """Memory whose pages are there."""
    memory = memoryview(mmap.mmap(-1, size_bytes))
    page = os.urandom(mmap.PAGESIZE)
    for start in range(0, size_bytes, mmap.PAGESIZE):
        memory[start : start + mmap.PAGESIZE] = page
    return memory


def processors():
    """Half of them for each side; None if there is one."""
    own = sorted(os.sched_getaffinity(0))
    half = len(own) // 2
    return (own[:half], own[half:]) if half else (None, None)
