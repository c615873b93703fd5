"""Rank 0 of the multicast benchmark: it plays the manager's part.

As a manager it knows how much of the model members hold, not which chunks.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

from multicast_case import Case, Result, described, name
from multicast_member import MemberProcess, run_gloo
from multicast_memory import peak_memory_bytes, reset_peak_memory

from jscale.core.errors import TransportError
from jscale.core.ids import WorkerId
from jscale.core.topology import Topology
from jscale.core.units import NS_PER_S
from jscale.plan.arrangement import multicast_over
from jscale.plan.cost import Held
from jscale.plan.kinds import multicast
from jscale.plan.multicast_plan import MulticastPlan
from jscale.plan.repair import likely_held, repair
from jscale.plan.stragglers import StragglerWatch, with_rates


class Leader:
    """Runs cases, one after the other. Owned by the main thread of rank 0."""

    def __init__(
        self,
        process: MemberProcess,
        *,
        rate_bytes_per_s: float,
        set_rate: Callable[[int, float], None],
    ) -> None:
        """Every rank is there.

        Args:
          process: our own.
          rate_bytes_per_s: of every link.
          set_rate: shapes the link of a rank.
        """
        self._process = process
        self._rate = rate_bytes_per_s
        self._set_rate = set_rate
        self._num_plans = 0

    def run(self, case: Case) -> Result:
        """Takes part, watches the others, changes the plan where it must."""
        self._process.wait_for_all()
        if case.slow:
            self._set_rate(case.slow[0], case.slow[1])
        try:
            return _Run(self._process, case, self._rate, self._next_plan).result()
        finally:
            if case.slow:
                self._set_rate(case.slow[0], self._rate)

    def run_gloo(self, case: Case, addresses: list[str], port: int) -> Result:
        """The same by torch."""
        arguments = {
            "num_members": case.num_members,
            "size_bytes": case.size_bytes,
            "run": self._next_plan(),
        }
        for rank in range(1, case.num_members):
            self._process.tell(rank, "gloo", arguments)
        seconds, peak = run_gloo(addresses, 0, port, **arguments)
        return Result(seconds, seconds, 0.0, seconds, peak)

    def _next_plan(self) -> int:
        self._num_plans += 1
        return self._num_plans


class _Run:
    """One case on its way."""

    def __init__(
        self,
        process: MemberProcess,
        case: Case,
        rate_bytes_per_s: float,
        next_plan: Callable[[], int],
    ) -> None:
        self._process = process
        self._case = case
        self._next_plan = next_plan
        self._run = next_plan()
        self._num_chunks = -(-case.size_bytes // case.chunk_size_bytes)
        ranks = range(case.num_members - (case.join is not None))
        names = [name(rank) for rank in ranks]
        self._links = Topology.uniform(
            [name(rank) for rank in range(case.num_members)], rate_bytes_per_s
        )
        sources, targets = names[: case.num_sources], names[case.num_sources :]
        if case.slow and case.is_slow_known:
            links = with_rates(self._links, {name(case.slow[0]): case.slow[1]})
            self._plan = multicast_over(links, sources, targets, self._num_chunks)
        else:
            self._plan = multicast(sources, targets, self._num_chunks, kind=case.plan)
        self._watch: StragglerWatch | None = None
        self._waiting = {int(target[1:]) for target in targets}
        self._complete_s: dict[int, float] = {}
        self._num_held: dict[int, int] = dict.fromkeys(self._waiting, 0)
        self._is_joining = case.join is not None
        self._joined_s = 0.0
        self._num_plans = 1

    def result(self) -> Result:
        """Runs it."""
        case, process = self._case, self._process
        followers = sorted({int(member[1:]) for member in self._plan.members} - {0})
        reset_peak_memory()
        process.prepare(**self._preparation(0))
        for rank in followers:
            process.tell(rank, "prepare", self._preparation(rank))
        self._collect("ready", len(followers))
        for rank in followers:
            process.tell(rank, "go")
        process.go()
        self._started_s = time.monotonic()
        if case.slow and not case.is_slow_known:
            self._watch = StragglerWatch(
                self._plan,
                self._num_chunks,
                0,
                usual_bytes_per_s=self._links.hosts[0].free_inbound_bytes_per_s
                / case.chunk_size_bytes,
            )
        while self._waiting or self._is_joining:
            self._note(*process.next_message())
        left = sorted({int(member[1:]) for member in self._plan.members} - {0})
        for rank in left:
            process.tell(rank, "check", {"digest": process.digest()})
        reports = self._collect("checked", len(left))
        process.end()
        return self._summary(reports)

    def _preparation(self, rank: int) -> dict[str, Any]:
        kill = self._case.kill
        return {
            "run": self._run,
            "chunk_size_bytes": self._case.chunk_size_bytes,
            "plan": described(self._plan),
            "is_source": rank < self._case.num_sources,
            "kill_share": kill[1] if kill and kill[0] == rank else None,
        }

    def _note(self, what: str, arguments: dict[str, Any]) -> None:
        """What a member said while chunks travel."""
        now_s = time.monotonic() - self._started_s
        match what:
            case "complete":
                rank = arguments["rank"]
                self._num_held[rank] = self._num_chunks
                self._complete_s[rank] = now_s
                self._waiting.discard(rank)
                self._progressed(rank, now_s)
            case "progress":
                self._num_held[arguments["rank"]] = arguments["num_held"]
                self._progressed(arguments["rank"], now_s)
            case "lost":
                self._lost(WorkerId(arguments["peer"]))
            case "ready":  # The one who joins late.
                self._process.tell(self._case.num_members - 1, "go")
            case _:
                raise TransportError(f"{what!r} {arguments} in the midst of a run")

    def _progressed(self, rank: int, now_s: float) -> None:
        held_share = statistics.mean(self._num_held.values()) / self._num_chunks
        if self._is_joining and held_share >= (self._case.join or 0):
            self._is_joining = False
            self._join(now_s)
        now_ns = int(now_s * NS_PER_S)
        if self._watch and self._watch.reported(
            name(rank), self._num_held[rank], now_ns
        ):
            rates = {
                member: rate * self._case.chunk_size_bytes
                for member, rate in self._watch.rates_bytes_per_s.items()
            }
            links = with_rates(self._links, rates)
            sources, targets = self._plan.sources, self._plan.targets
            held = self._likely_held()
            self._go_on_by(
                multicast_over(links, sources, targets, self._num_chunks, held=held)
            )
            self._watch.follow(self._plan, now_ns)

    def _join(self, now_s: float) -> None:
        """Lets the last rank take part from now on."""
        rank = self._case.num_members - 1
        self._joined_s = now_s
        self._waiting.add(rank)
        plan = repair(
            self._plan, self._links, joined=[name(rank)], held=self._likely_held()
        )
        assert plan is not None
        self._go_on_by(plan, new_rank=rank)
        self._num_held[rank] = 0

    def _lost(self, peer: WorkerId) -> None:
        if peer not in self._plan.members:
            return
        rank = int(peer[1:])
        self._waiting.discard(rank)
        self._num_held.pop(rank, None)
        held = self._likely_held()
        plan = repair(self._plan, self._links, lost=[peer], held=held)
        if plan is not None:
            self._go_on_by(plan)

    def _likely_held(self) -> Held:
        held = {name(rank): num_held for rank, num_held in self._num_held.items()}
        return likely_held(self._plan, held)

    def _go_on_by(self, plan: MulticastPlan, new_rank: int | None = None) -> None:
        """Tells everyone of another plan."""
        self._plan, self._run = plan, self._next_plan()
        self._num_plans += 1
        for member in plan.members:
            rank = int(member[1:])
            if rank == new_rank:
                self._process.tell(rank, "prepare", self._preparation(rank))
            elif rank != 0:
                arguments = {"run": self._run, "plan": described(plan)}
                self._process.tell(rank, "follow", arguments)
        self._process.go_on_by(self._run, described(plan))

    def _collect(self, expected: str, num_answers: int) -> list[dict[str, Any]]:
        """What each of the others answers; progress that comes late is left out."""
        answers = []
        while len(answers) < num_answers:
            what, arguments = self._process.next_message()
            if what == expected:
                answers.append(arguments)
            elif what not in ("progress", "lost"):
                raise TransportError(f"expected {expected!r}, got {what!r} {arguments}")
        return answers

    def _summary(self, reports: list[dict[str, Any]]) -> Result:
        odd = self._case.odd_rank
        others_s = [s for rank, s in self._complete_s.items() if rank != odd]
        first_s: dict[int, float] = {}
        for report in reports:
            for chunk, landed_s in report["landings"]:
                first_s[chunk] = min(landed_s, first_s.get(chunk, landed_s))
        peaks = [report["peak_memory_bytes"] for report in reports]
        own_s = self._complete_s.get(odd, 0.0) if odd is not None else 0.0
        return Result(
            seconds=max(self._complete_s.values()),
            others_seconds=max(others_s),
            own_seconds=own_s - self._joined_s,
            coverage_seconds=max(first_s.values()),
            peak_memory_bytes=max([*peaks, peak_memory_bytes()]),
            num_plans=self._num_plans,
        )
