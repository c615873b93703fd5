"""One member of the multicast benchmark: a process, led by that of rank 0."""

import contextlib
import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
import time
import types
from typing import Any, Self

from multicast_memory import peak_memory_bytes, reset_peak_memory

from jscale.core.errors import PeerLostError, TransportError
from jscale.core.ids import PlanId, WorkerId
from jscale.plan import multicast
from jscale.plan.multicast_plan import MulticastPlan
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


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured."""

    plan: str
    num_members: int
    size_bytes: int
    chunk_size_bytes: int


@dataclasses.dataclass(frozen=True)
class Result:
    """Time until the last member held everything; memory of the largest process."""

    seconds: float
    peak_memory_bytes: int


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
    ) -> None:
        self._addresses = addresses
        self._rank = rank
        self._port = port
        self._memory = ChunkMemory(size_bytes, size_bytes)
        self._router = PlanRouter()
        self._inbox: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self._connections: dict[WorkerId, Connection] = {}
        self._connected = threading.Condition()
        self._num_runs = 0
        self._transport = open_transport(
            "tcp://",
            Hello(_name(rank), b"bench"),
            link=LinkPacer(link_rate_bytes_per_s) if link_rate_bytes_per_s else None,
            timeout_s=20.0,
        )

    def __enter__(self) -> Self:
        """Connects every two ranks, so that no case pays for it."""
        host = self._addresses[self._rank]
        self._transport.listen(f"tcp://{host}:{self._port + self._rank}", self)
        for rank in range(self._rank):
            self.opened(self._dial(rank))
        with self._connected:
            num_peers = len(self._addresses) - 1
            if not self._connected.wait_for(
                lambda: len(self._connections) == num_peers, CONNECT_TIMEOUT_S
            ):
                raise TransportError(
                    f"{len(self._connections)} of {num_peers} members are there after "
                    f"{CONNECT_TIMEOUT_S:g} s; is every rank started?"
                )
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        if self._rank == 0:
            with contextlib.suppress(PeerLostError):
                self._tell_all(len(self._addresses), "bye")
        self._transport.close()

    def lead(self, case: Case) -> Result:
        """Runs a case with the ranks below `num_members`; for rank 0."""
        self._num_runs += 1
        run = self._num_runs
        description = dataclasses.asdict(case) | {"run": run}
        if case.plan == "gloo":
            return self._lead_gloo(case, description)
        member = self._member(case, run)
        self._tell_all(case.num_members, "prepare", description)
        self._collect(case.num_members, "ready")
        started_s = time.monotonic()
        member.start()
        self._collect(case.num_members, "complete")
        seconds = time.monotonic() - started_s
        self._tell_all(case.num_members, "check", {"digest": self._memory.digest()})
        reports = self._collect(case.num_members, "checked")
        self._router.remove(PlanId(run))
        member.close()
        peaks = [report["peak_memory_bytes"] for report in reports]
        return Result(seconds, max([*peaks, peak_memory_bytes()]))

    def follow(self) -> None:
        """Does what rank 0 says until it says bye, or is gone."""
        member: MulticastMember | None = None
        while True:
            what, arguments = self._inbox.get()
            match what:
                case "prepare":
                    run = arguments.pop("run")
                    case = Case(**arguments)
                    reset_peak_memory()
                    member = self._member(case, run)
                    member.start()
                    self._tell(0, "ready")
                case "landed_all":
                    self._tell(0, "complete")
                case "check":
                    self._check(arguments["digest"], member)
                case "gloo":
                    _gloo(self._addresses, self._rank, self._port, **arguments)
                case "bye":
                    return
                case "lost" if arguments["peer"] == _name(0):
                    raise PeerLostError("rank 0 is gone")

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
        self._inbox.put(("lost", {"peer": connection.peer}))

    def chunk_landed(self, plan: PlanId, chunk: int, region: int | None) -> None:
        """The last one makes this member complete."""
        del plan, chunk, region
        if self._memory.is_full:
            self._inbox.put(("landed_all", {}))

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

    def _member(self, case: Case, run: int) -> MulticastMember:
        self._memory.cut(case.chunk_size_bytes)
        if self._rank == 0:
            self._memory.fill()
        names = [_name(rank) for rank in range(case.num_members)]
        plan: MulticastPlan = multicast(
            names[:1], names[1:], self._memory.num_chunks, kind=case.plan
        )
        me = _name(self._rank)
        member = MulticastMember(PlanId(run), plan, me, self._memory, self)
        self._router.add(member)
        return member

    def _check(self, digest: str, member: MulticastMember | None) -> None:
        assert member is not None
        self._router.remove(member.plan_id)
        member.close()
        peak = peak_memory_bytes()
        if self._memory.digest() != digest:
            raise AssertionError(f"rank {self._rank} does not hold what rank 0 sent")
        self._tell(0, "checked", {"peak_memory_bytes": peak})

    def _lead_gloo(self, case: Case, description: dict[str, Any]) -> Result:
        arguments = {
            "num_members": case.num_members,
            "size_bytes": case.size_bytes,
            "run": description["run"],
        }
        self._tell_all(case.num_members, "gloo", arguments)
        seconds, peak = _gloo(self._addresses, 0, self._port, **arguments)
        return Result(seconds, peak)

    def _tell(
        self, rank: int, what: str, arguments: dict[str, Any] | None = None
    ) -> None:
        payload = json.dumps(arguments or {}).encode()
        self._connections[_name(rank)].send_message(what.encode(), payload)

    def _tell_all(
        self, num_members: int, what: str, arguments: dict[str, Any] | None = None
    ) -> None:
        for rank in range(1, num_members):
            self._tell(rank, what, arguments)

    def _collect(self, num_members: int, expected: str) -> list[dict[str, Any]]:
        """What each of the others answers; all must say the same word."""
        answers = []
        while len(answers) < num_members - 1:
            try:
                what, arguments = self._inbox.get(timeout=TIMEOUT_S)
            except queue.Empty:
                raise TransportError(
                    f"{len(answers)} of {num_members - 1} said {expected!r} within "
                    f"{TIMEOUT_S:g} s"
                ) from None
            if what != expected:
                raise TransportError(f"expected {expected!r}, got {what!r} {arguments}")
            answers.append(arguments)
        return answers


def _name(rank: int) -> WorkerId:
    return WorkerId(f"w{rank}")


def _gloo(
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
