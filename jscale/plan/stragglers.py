"""Which members of a multicast are slow, told from what they report as it runs."""

import collections
import dataclasses
import math
import statistics
from collections.abc import Mapping

from jscale.core.errors import ConfigError
from jscale.core.ids import WorkerId
from jscale.core.topology import Nic, Topology
from jscale.core.units import NS_PER_MS, NS_PER_S
from jscale.plan.multicast_plan import MulticastPlan

CHUNKS_A_WINDOW_MIN = 8
"""Rates over fewer chunks say more of when these came than of links."""

WINDOWS_REMEMBERED = 5
"""A member that was fast just now may wait for chunks; it is not slow for that."""

BEHIND_SHARE_MAX = 0.75
"""Whoever receives at more than this share of its suppliers' rate waits for them."""

ALIKE = 1.25
"""Slow members whose rates differ by no more are found at the same time."""


@dataclasses.dataclass(frozen=True)
class StragglerPolicy:
    """When a member counts as slow.

    Args:
      rate_share_max: it receives at under this share of what is usual.
      window_ns: rates are means over this long, or longer where fewer than 8 chunks
        come in it; and so long a member must have been slow, after 5 windows in which
        it was slow all in all. From the start of a plan that is twice this time.
      missing_share_min: nobody is found slow when members lack less than this share on
        average: what is left ends before another plan could help.
      num_found_max: how many times somebody is found slow in one multicast.

    Raises:
      ConfigError: a share is not between 0 and 1, the window or the number under 1.
    """

    rate_share_max: float = 0.5
    window_ns: int = 200 * NS_PER_MS
    missing_share_min: float = 0.2
    num_found_max: int = 2

    def __post_init__(self) -> None:
        for name in ("rate_share_max", "missing_share_min"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ConfigError(f"{name} {share}: give 0 to 1")
        for name in ("window_ns", "num_found_max"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"{name} {value}: give at least 1")


DEFAULT_STRAGGLER_POLICY = StragglerPolicy()


class StragglerWatch:
    """Finds slow members of one multicast. Mutable; no clock of its own.

    A member is slow if it receives at far less than the usual rate, though those who
    send to it by plan receive faster and hold more: whoever waits behind a slow member
    is not slow itself. Of several, the slowest are found first.

    Whoever was found slow remains so: by the next plan it sends to nobody but others
    that are slow, and nothing is won by trusting it again. Plans never go to and fro.

    This is for plans in which all receive all the time: not for the scatter kind, whose
    members first wait for each other's parts.

    A member that receives fast and sends slowly is not told from those behind it; what
    is known of outbound links belongs into the topology.
    """

    def __init__(
        self,
        plan: MulticastPlan,
        size_bytes: int,
        now_ns: int,
        *,
        usual_bytes_per_s: float = 0.0,
        policy: StragglerPolicy = DEFAULT_STRAGGLER_POLICY,
    ) -> None:
        """Nothing has been received yet.

        Args:
          plan: who takes part.
          size_bytes: what everyone is to hold.
          now_ns: when it begins.
          usual_bytes_per_s: at what rate members receive on links as they should be,
            where that is known; otherwise, the fastest that is seen.
          policy: when a member counts as slow.
        """
        self._size_bytes = size_bytes
        self._usual_bytes_per_s = usual_bytes_per_s
        self._policy = policy
        self._held: dict[WorkerId, int] = {}
        self._rates: dict[WorkerId, float] = {}
        self._num_found = 0
        self.follow(plan, now_ns)

    @property
    def rates_bytes_per_s(self) -> Mapping[WorkerId, float]:
        """Slow members, and the rate at which each received when it was found."""
        return self._rates

    @property
    def usual_bytes_per_s(self) -> float:
        """The rate at which members receive that are not slow; 0 if none was seen."""
        return self._usual_bytes_per_s

    def follow(self, plan: MulticastPlan, now_ns: int) -> None:
        """Goes on with another plan: who is slow remains so, others start anew."""
        self._begin_ns = now_ns
        self._chunk_size_bytes = self._size_bytes / plan.num_chunks
        self._held.update(dict.fromkeys(plan.sources, self._size_bytes))
        self._suppliers = {
            plan.members[index]: {
                plan.members[source] for _, source, _ in plan.receives_of(index)
            }
            for index in range(len(plan.sources), plan.num_members)
        }
        self._reports = {
            target: collections.deque([(now_ns, self._held.get(target, 0))])
            for target in plan.targets
        }
        self._slow_since_ns: dict[WorkerId, int] = {}

    def reported(
        self, member: WorkerId, held_bytes: int, now_ns: int
    ) -> frozenset[WorkerId]:
        """Members that are found slow by this report; usually none.

        Args:
          member: who reports.
          held_bytes: what it holds of the model by now.
          now_ns: when.
        """
        if member not in self._reports:
            return frozenset()
        self._held[member] = held_bytes
        self._reports[member].append((now_ns, held_bytes))
        found = frozenset(self._slow_for_long(now_ns))
        if found:
            self._num_found += 1
            for each in found:
                self._rates[each] = max(1.0, self._rate(each, now_ns))
        return found

    def _slow_for_long(self, now_ns: int) -> list[WorkerId]:
        """The slowest of those that have been slow for a window."""
        window_ns = self._window_ns(now_ns)
        missing = self._size_bytes - statistics.mean(
            self._held.get(target, 0) for target in self._reports
        )
        if (
            self._num_found == self._policy.num_found_max
            or now_ns - self._begin_ns < window_ns
            or missing < self._policy.missing_share_min * self._size_bytes
        ):
            return []
        slow = self._slow_now(now_ns)
        since = self._slow_since_ns
        self._slow_since_ns = {each: since.get(each, now_ns) for each in slow}
        for_long = [t for t in slow if now_ns - self._slow_since_ns[t] >= window_ns]
        least = min((slow[target] for target in for_long), default=0.0)
        return [target for target in for_long if slow[target] <= ALIKE * least]

    def _slow_now(self, now_ns: int) -> dict[WorkerId, float]:
        """Those that are slow by their last reports, and their rates."""
        rates = {target: self._rate(target, now_ns) for target in self._reports}
        finite = [rate for rate in rates.values() if rate < math.inf]
        self._usual_bytes_per_s = max(self._usual_bytes_per_s, *finite, 0.0)
        usual = self._usual_bytes_per_s
        slow = {}
        for target, rate in rates.items():
            suppliers = self._suppliers[target]
            supplied = statistics.median(rates.get(each, usual) for each in suppliers)
            lag = max(self._held.get(each, 0) for each in suppliers) - self._held.get(
                target, 0
            )
            if (
                target not in self._rates
                and rate < self._policy.rate_share_max * usual
                and self._rate(target, now_ns, WINDOWS_REMEMBERED)
                < self._policy.rate_share_max * usual
                and rate <= BEHIND_SHARE_MAX * supplied
                and lag >= CHUNKS_A_WINDOW_MIN / 2 * self._chunk_size_bytes
            ):
                slow[target] = rate
        return slow

    def _window_ns(self, now_ns: int) -> int:
        """Over which rates are told: several chunks of the fastest member."""
        passed_ns = max(1, now_ns - self._begin_ns)
        most = max(reports[-1][1] - reports[0][1] for reports in self._reports.values())
        fastest = max(most * NS_PER_S / passed_ns, self._usual_bytes_per_s, 1.0)
        chunks_ns = CHUNKS_A_WINDOW_MIN * self._chunk_size_bytes * NS_PER_S / fastest
        return max(self._policy.window_ns, int(chunks_ns))

    def _rate(self, target: WorkerId, now_ns: int, num_windows: int = 1) -> float:
        """Bytes a second over the last windows; of a complete one, no bound."""
        reports = self._reports[target]
        if reports[-1][1] >= self._size_bytes:
            return math.inf
        window_ns = self._window_ns(now_ns)
        while len(reports) > 2 and reports[1][0] <= (
            now_ns - WINDOWS_REMEMBERED * window_ns
        ):
            reports.popleft()
        last_ns, last_bytes = reports[-1]
        # Between two reports nothing is known; after that it has become silent.
        end_ns = last_ns if now_ns - last_ns <= 1.5 * window_ns else now_ns
        earlier = (each for each in reversed(reports) if each[0] < last_ns)
        start_ns = end_ns - num_windows * window_ns
        first_ns, first_bytes = next(
            (each for each in earlier if each[0] <= start_ns), reports[0]
        )
        return (last_bytes - first_bytes) * NS_PER_S / max(1, end_ns - first_ns)


def with_rates(
    topology: Topology, rates_bytes_per_s: Mapping[WorkerId, float]
) -> Topology:
    """The same links, of which those of some workers' hosts carry only so much."""
    hosts = []
    for host in topology.hosts:
        rates = [rates_bytes_per_s[w] for w in host.workers if w in rates_bytes_per_s]
        if rates:
            nic = Nic(max(rates), max(rates))
            host = dataclasses.replace(host, nics=(nic,))
        hosts.append(host)
    return dataclasses.replace(topology, hosts=tuple(hosts))
