"""One member of the multicast benchmark: a process, led by that of rank 0."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import types
from typing import Any, Self

from multicast_case import REPORT_EVERY_S, name, plan_of
from multicast_memory import peak_memory_bytes, reset_peak_memory

from jscale.core.errors import PeerLostError, TransportError
from jscale.core.ids import PlanId, WorkerId
from jscale.transport.base import Connection, Handler, Hello, Landing
from jscale.transport.chunk_memory import ChunkMemory
from jscale.transport.multicast import (
    MulticastMember,
    MulticastObserver,
    MulticastOutcome,
)
from jscale.transport.pacing import LinkPacer
from jscale.transport.plan_router import PlanRouter
from jscale.transport.registry import open_transport

TIMEOUT_S = 120.0
CONNECT_TIMEOUT_S = 30.0


class MemberProcess(Handler, MulticastObserver):
    """All that one rank does. Owned by the main thread; callbacks only queue."""

    def __init__(
        self,
        addresses: list[str],
        rank: int,
        *,
        port: int,
        size_bytes: int,
        link_rate_bytes_per_s: float | None,
        is_restarted: bool = False,
    ) -> None:
        self._addresses = addresses
        self._rank = rank
        self._port = port
        self._memory = ChunkMemory(size_bytes, size_bytes)
        self._router = PlanRouter()
        self._inbox: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self._connections: dict[WorkerId, Connection] = {}
        self._connected = threading.Condition()
        self._is_restarted = is_restarted
        self._link = LinkPacer(link_rate_bytes_per_s) if link_rate_bytes_per_s else None
        self._member: MulticastMember | None = None
        self._kill_share: float | None = None
        self._landings: list[tuple[int, float]] = []
        self._started_s = self._told_s = 0.0
        self._transport = open_transport(
            "tcp://",
            Hello(name(rank), b"bench"),
            link=self._link,
            timeout_s=20.0,
        )

    def __enter__(self) -> Self:
        """Connects every two ranks, so that no case pays for it.

        The later connects; one that was killed and restarted, to all.
        """
        host = self._addresses[self._rank]
        self._transport.listen(f"tcp://{host}:{self._port + self._rank}", self)
        others = set(range(len(self._addresses))) - {self._rank}
        for rank in others if self._is_restarted else range(self._rank):
            self.opened(self._dial(rank))
        self.wait_for_all()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        if self._rank == 0:
            with contextlib.suppress(TransportError):
                self.wait_for_all()
            for rank in range(1, len(self._addresses)):
                with contextlib.suppress(PeerLostError, KeyError):
                    self.tell(rank, "bye")
        self._transport.close()

    def follow(self) -> None:
        """Does what rank 0 says until it says bye, or is gone."""
        while True:
            what, arguments = self.next_message()
            match what:
                case "prepare":
                    reset_peak_memory()
                    self.prepare(**arguments)
                    self.tell(0, "ready")
                case "go":
                    self.go()
                case "follow":
                    self.go_on_by(**arguments)
                case "pace":
                    self._pace(arguments["bytes_per_s"])
                case "progress" | "complete":
                    self.tell(0, what, {"rank": self._rank} | arguments)
                case "check":
                    self._check(arguments["digest"])
                case "gloo":
                    run_gloo(self._addresses, self._rank, self._port, **arguments)
                case "bye":
                    return
                case "lost" if arguments["peer"] == name(0):
                    raise PeerLostError("rank 0 is gone")

    def prepare(
        self,
        run: int,
        chunk_size_bytes: int,
        plan: dict[str, Any],
        *,
        is_source: bool = False,
        kill_share: float | None = None,
    ) -> None:
        """Takes part in a plan, from `go` on."""
        self._memory.cut(chunk_size_bytes)
        if is_source:
            self._memory.fill(run)
        self._kill_share = kill_share
        self._landings = []
        self._told_s = time.monotonic()
        made = plan_of(**plan, num_chunks=self._memory.num_chunks)
        self._member = MulticastMember(
            PlanId(run), made, name(self._rank), self._memory, self
        )
        self._router.add(self._member)

    def go(self) -> None:
        """Begins."""
        assert self._member is not None
        self._started_s = time.monotonic()
        self._member.start()

    def go_on_by(self, run: int, plan: dict[str, Any]) -> None:
        """Another plan in place of the last."""
        assert self._member is not None
        made = plan_of(**plan, num_chunks=self._memory.num_chunks)
        self._router.follow(self._member, PlanId(run), made)

    def end(self) -> None:
        """Takes part no more."""
        assert self._member is not None
        self._router.remove(self._member.plan_id)
        self._member.close()

    def digest(self) -> str:
        """Of all bytes."""
        return self._memory.digest()

    @property
    def num_chunks(self) -> int:
        """As they were cut last."""
        return self._memory.num_chunks

    def wait_for_all(self) -> None:
        """Returns when every other rank is connected.

        Raises:
          TransportError: somebody is not, for too long.
        """
        num_peers = len(self._addresses) - 1
        with self._connected:
            if not self._connected.wait_for(
                lambda: len(self._connections) == num_peers, CONNECT_TIMEOUT_S
            ):
                raise TransportError(
                    f"{len(self._connections)} of {num_peers} members are there after "
                    f"{CONNECT_TIMEOUT_S:g} s; is every rank started?"
                )

    def next_message(self) -> tuple[str, dict[str, Any]]:
        """What another rank said, or happened here.

        Raises:
          TransportError: nothing, for too long.
        """
        try:
            return self._inbox.get(timeout=TIMEOUT_S)
        except queue.Empty:
            raise TransportError(f"nothing was said for {TIMEOUT_S:g} s") from None

    def tell(
        self, rank: int, what: str, arguments: dict[str, Any] | None = None
    ) -> None:
        """Says something to one rank."""
        payload = json.dumps(arguments or {}).encode()
        self._connections[name(rank)].send_message(what.encode(), payload)

    # --- callbacks, on receive threads -------------------------------------------

    def opened(self, connection: Connection) -> None:
        """Counts who is there."""
        self._router.opened(connection)
        with self._connected:
            self._connections[connection.peer] = connection
            self._connected.notify_all()

    def landing(self, plan: int) -> Landing | None:
        """Chunks go to the member of the case."""
        return self._router.landing(plan)

    def message(
        self, connection: Connection, header: bytes, payload: memoryview
    ) -> None:
        """What ranks tell each other."""
        del connection
        self._inbox.put((header.decode(), json.loads(bytes(payload))))

    def announced(self, connection: Connection, plan: int, held: bytes) -> None:
        """A member is ready."""
        self._router.announced(connection, plan, held)

    def asked(self, connection: Connection, plan: int, chunk: int) -> None:
        """A chunk was damaged."""
        self._router.asked(connection, plan, chunk)

    def lost(self, connection: Connection, error: PeerLostError) -> None:
        """The main thread decides what it means."""
        del error
        self._router.lost(connection)
        with self._connected:
            if self._connections.get(connection.peer) is connection:
                del self._connections[connection.peer]
        self._inbox.put(("lost", {"peer": connection.peer}))

    def chunk_landed(self, plan: PlanId, chunk: int, region: int | None) -> None:
        """Tells progress; the last one makes this member complete."""
        del plan, region
        now_s = time.monotonic()
        self._landings.append((chunk, now_s - self._started_s))
        num_held = len(self._landings)
        if self._kill_share and num_held >= self._kill_share * self._memory.num_chunks:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._memory.is_full:
            self._inbox.put(("complete", {}))
        elif now_s - self._told_s >= REPORT_EVERY_S:
            self._told_s = now_s
            self._inbox.put(("progress", {"num_held": num_held}))

    def peer_lost(self, plan: PlanId, peer: WorkerId) -> None:
        """Told by `lost` already."""

    def ended(self, outcome: MulticastOutcome) -> None:
        """Only completeness is measured."""

    # ------------------------------------------------------------------------------

    def _dial(self, rank: int) -> Connection:
        address = f"tcp://{self._addresses[rank]}:{self._port + rank}"
        deadline_s = time.monotonic() + CONNECT_TIMEOUT_S
        while True:
            try:
                return self._transport.connect(address, self)
            except TransportError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.05)

    def _pace(self, bytes_per_s: float) -> None:
        assert self._link is not None
        self._link.change_rate(bytes_per_s)

    def _check(self, digest: str) -> None:
        self.end()
        peak = peak_memory_bytes()
        if self._memory.digest() != digest:
            raise AssertionError(f"rank {self._rank} does not hold what rank 0 sent")
        self.tell(0, "checked", {"peak_memory_bytes": peak, "landings": self._landings})


def run_gloo(
    addresses: list[str],
    rank: int,
    port: int,
    *,
    num_members: int,
    size_bytes: int,
    run: int,
) -> tuple[float, int]:
    """Seconds and peak memory of a broadcast by torch, in a process of its own."""
    script = os.path.join(os.path.dirname(__file__), "multicast_gloo.py")
    arguments = {
        "host": addresses[0],
        "address": addresses[rank],
        "port": port + len(addresses) + run,
        "rank": rank,
        "num_members": num_members,
        "size_bytes": size_bytes,
    }
    flags = [f"--{name}={value}" for name, value in arguments.items()]
    done = subprocess.run(
        [sys.executable, script, *flags],
        stdout=subprocess.PIPE,
        timeout=TIMEOUT_S,
        check=True,
    )
    result = json.loads(done.stdout)
    return result["seconds"], result["peak_memory_bytes"]
