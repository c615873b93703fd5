"""Two or more processes' worth of transport in one test, closed and checked after."""

import queue
import threading
from collections.abc import Iterator

import pytest

from jscale.core.errors import PeerLostError
from jscale.core.ids import WorkerId
from jscale.transport.base import Connection, Handler, Hello, Landing, Transport
from jscale.transport.checksum import crc32c
from jscale.transport.rdma_options import RdmaOptions
from jscale.transport.registry import open_transport
from tests.rdma.devices import DEVICES, in_turn
from tests.transport import fake_verbs
from tests.transport.party import Peer

PATIENCE_S = 20.0
ANY_ADDRESS = {
    "mem": "mem://0",
    "tcp": "tcp://127.0.0.1:0",
    "rdma": "rdma://127.0.0.1:0",
}
SCHEMES = [
    "mem",
    "tcp",
    pytest.param("rdma", marks=pytest.mark.rdma if DEVICES else ()),
]
THREADS = ("tcp-", "mem-", "rdma-", "multicast-")


class Recorder(Handler):
    """Puts what happens into a queue, as tuples that start with what it was."""

    def __init__(self):
        self.events = queue.Queue()
        self.landings = {}
        self.hold = threading.Event()
        self.hold.set()

    def next(self, kind):
        """The next event, which must be of that kind, without the kind."""
        event = self.events.get(timeout=PATIENCE_S)
        assert event[0] == kind, event
        return event[1] if len(event) == 2 else event[1:]

    def opened(self, connection: Connection) -> None:
        self.events.put(("opened", connection))

    def landing(self, plan: int) -> Landing | None:
        return self.landings.get(plan)

    def message(self, connection, header: bytes, payload: memoryview) -> None:
        self.hold.wait(PATIENCE_S)
        self.events.put(("message", header, payload))

    def announced(self, connection, plan: int, held: bytes) -> None:
        self.events.put(("announced", plan, held))

    def asked(self, connection, plan: int, chunk: int) -> None:
        self.events.put(("asked", plan, chunk))

    def lost(self, connection, error: PeerLostError) -> None:
        self.events.put(("lost", error))


class Shelf(Landing):
    """Slots of one size, in one buffer; chunks in `unwanted` have none."""

    def __init__(self, recorder, num_chunks=4, chunk_size_bytes=1000):
        self.recorder = recorder
        self.size = chunk_size_bytes
        self.memory = bytearray(num_chunks * chunk_size_bytes)
        self.unwanted = set()

    def bytes_of(self, chunk):
        return bytes(self.memory[chunk * self.size : (chunk + 1) * self.size])

    def slot(self, connection, chunk):
        if chunk in self.unwanted:
            return None
        return memoryview(self.memory)[chunk * self.size : (chunk + 1) * self.size]

    def landed(self, connection, chunk):
        self.recorder.events.put(("landed", chunk))

    def failed(self, connection, chunk):
        self.recorder.events.put(("failed", chunk))


class Net:
    """Transports of one scheme, one for each worker of a test.

    With RDMA each is on a device of its own, as far as there are so many.
    """

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme
        self.any_address = ANY_ADDRESS[scheme]
        self.transports: list[Transport] = []
        self.devices = in_turn()

    def open(self, worker: str, *, token=b"secret", **options) -> Transport:
        hello = Hello(WorkerId(worker), token)
        if self.scheme == "rdma" and DEVICES and "rdma" not in options:
            options["rdma"] = RdmaOptions(devices=(next(self.devices),))
        transport = open_transport(f"{self.scheme}://", hello, **options)
        self.transports.append(transport)
        return transport

    def pair(self, **options):
        """Two connected sides: (connection, recorder) of `a`, and of `b`."""
        near, far = Recorder(), Recorder()
        listener = self.open("b").listen(self.any_address, far)
        connection = self.open("a", **options).connect(listener.address, near)
        return (connection, near), (far.next("opened"), far)

    def recorder(self):
        return Recorder()

    def shelf(self, recorder, **options):
        shelf = Shelf(recorder, **options)
        for transport in self.transports:
            transport.register(memoryview(shelf.memory))
        return shelf

    def close(self) -> None:
        for transport in self.transports:
            transport.close()


class LyingChecksum:
    """Right but for the calls whose numbers are given, counted among large buffers."""

    def __init__(self, *lies):
        self.lies = lies
        self.num_calls = 0

    def __call__(self, payload, header=b""):
        crc = crc32c(payload, header)
        if len(payload) < 500:
            return crc
        self.num_calls += 1
        return crc ^ 1 if self.num_calls - 1 in self.lies else crc


@pytest.fixture(params=SCHEMES)
def net(request) -> Iterator[Net]:
    """Transports of each scheme; of RDMA on simulated devices if there are none."""
    if request.param == "rdma" and not DEVICES:
        request.getfixturevalue("fabric")
    yield from opened_and_closed(request.param)


@pytest.fixture
def fabric(monkeypatch):
    """The simulated devices between the transports of this test."""
    fabric = fake_verbs.install(monkeypatch)
    yield fabric
    assert not +fabric.open, "not given back"


@pytest.fixture
def tcp() -> Iterator[Net]:
    yield from opened_and_closed("tcp")


@pytest.fixture
def party(net):
    """Makes peers, all connected to each other; the first holds everything."""
    made = []

    def make(num_members, **options):
        made.extend(Peer(net, f"w{i}", **options) for i in range(num_members))
        for index, peer in enumerate(made):
            for other in made[:index]:
                peer.connect(other)
        made[0].memory.fill()
        return list(made)

    yield make
    for peer in made:
        if peer.member is not None:
            peer.member.close()


def opened_and_closed(scheme):
    made = Net(scheme)
    yield made
    made.close()
    left = [t.name for t in threading.enumerate() if t.name.startswith(THREADS)]
    assert not left


@pytest.fixture
def lying_checksum():
    return LyingChecksum
