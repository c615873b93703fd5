"""What a gateway knows of its own speed, over the last moments."""

import collections
import dataclasses
from collections.abc import Sequence

from jscale.core.units import NS_PER_MS, NS_PER_S

WINDOW_NS = 2 * NS_PER_S
"""Tokens per second are a mean over this: long enough to be steady when replicas emit
a step at a time, short enough to show a new replica."""

SLOT_NS = 50 * NS_PER_MS
NUM_TTFTS_KEPT = 512


@dataclasses.dataclass(frozen=True)
class ServingSpeed:
    """Speed over the last moments; a time to first token is 0 when there was none."""

    num_tokens: int
    num_finished: int
    tokens_per_s: float
    ttft_p50_ms: float
    ttft_p90_ms: float


class ServingMetrics:
    """Counts tokens and first tokens; bounded. Owned by the gateway's event loop."""

    def __init__(self, now_ns: int) -> None:
        self._started_ns = now_ns
        self._slots: collections.deque[tuple[int, int]] = collections.deque()
        self._ttfts_ns: collections.deque[int] = collections.deque(
            maxlen=NUM_TTFTS_KEPT
        )
        self._num_tokens = 0
        self._num_finished = 0

    def add_token(self, now_ns: int) -> None:
        """A token was given to a client. O(1)."""
        self._num_tokens += 1
        slot = now_ns // SLOT_NS
        if self._slots and self._slots[-1][0] == slot:
            self._slots[-1] = (slot, self._slots[-1][1] + 1)
        else:
            self._slots.append((slot, 1))
            self._drop_old(now_ns)

    def add_first_token(self, waited_ns: int) -> None:
        """A request got its first token so long after it arrived."""
        self._ttfts_ns.append(waited_ns)

    def add_finished(self) -> None:
        """A request is complete."""
        self._num_finished += 1

    def speed(self, now_ns: int) -> ServingSpeed:
        """What holds now."""
        self._drop_old(now_ns)
        window_ns = max(min(WINDOW_NS, now_ns - self._started_ns), SLOT_NS)
        return ServingSpeed(
            num_tokens=self._num_tokens,
            num_finished=self._num_finished,
            tokens_per_s=sum(count for _, count in self._slots) * NS_PER_S / window_ns,
            ttft_p50_ms=percentile(self._ttfts_ns, 50) / NS_PER_MS,
            ttft_p90_ms=percentile(self._ttfts_ns, 90) / NS_PER_MS,
        )

    def _drop_old(self, now_ns: int) -> None:
        while self._slots and self._slots[0][0] * SLOT_NS <= now_ns - WINDOW_NS:
            self._slots.popleft()


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that `percent` of them do not exceed; 0 for no values.

    `percentile([3, 1, 2], 50)` is 2.
    """
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]
