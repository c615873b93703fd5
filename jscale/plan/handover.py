"""KV of a sequence that changes replicas: moved or computed again, what is sooner."""

import dataclasses
import math
from collections import Counter

from jscale.core.errors import ConfigError
from jscale.core.ids import WorkerId
from jscale.core.units import NS_PER_MS, NS_PER_S
from jscale.plan.execution import ExecutionPipeline

SETUP_NS = 2 * NS_PER_MS
"""From the wish to move to the first byte: two messages, and leasing pages between two
steps of the target's device."""


@dataclasses.dataclass(frozen=True)
class HandOverCosts:
    """What moving and recomputing cost at one moment.

    Args:
      kv_bytes_per_token: KV of one token that the busiest link has to carry: that of
        all blocks where one worker hands over to one other, times
        `busiest_link_share` where there are more stages.
      link_bytes_per_s: the rate of that link, as far as it is free.
      prefill_tokens_per_s: how fast the newer replica computes prompts.
      queued_bytes: what the link has to carry before.
      queued_tokens: what the newer replica has to compute before.
      setup_ns: what moving takes however little is moved.

    Raises:
      ConfigError: a rate is not above 0, or an amount is under it.
    """

    kv_bytes_per_token: float
    link_bytes_per_s: float
    prefill_tokens_per_s: float
    queued_bytes: float = 0
    queued_tokens: float = 0
    setup_ns: int = SETUP_NS

    def __post_init__(self) -> None:
        for name in ("link_bytes_per_s", "prefill_tokens_per_s"):
            rate = getattr(self, name)
            if not (math.isfinite(rate) and rate > 0):
                raise ConfigError(f"hand-over with {name} {rate}: give more than 0")
        for name in ("kv_bytes_per_token", "queued_bytes", "queued_tokens", "setup_ns"):
            amount = getattr(self, name)
            if not (math.isfinite(amount) and amount >= 0):
                raise ConfigError(f"hand-over with {name} {amount}: give 0 or more")


def kv_is_moved(num_tokens: int, *, costs: HandOverCosts) -> bool:
    """Whether a sequence of so many tokens goes on sooner with its KV moved.

    If both are as soon, it is computed again: that needs nothing of the older replica.

    Of a 13B model (0.8 MB a token) over 50 GB/s, at 20,000 tokens/s of prefill, KV is
    moved from 59 tokens on: 2 ms of setup and 16 µs a token, against 50 µs a token.

    Source: HydraServe (arXiv 2502.15524) moves KV when its pipelines are consolidated;
    λScale (arXiv 2502.09922) and ServerlessLLM always recompute. Here it is a choice.
    """
    return move_ns(num_tokens, costs=costs) < recompute_ns(num_tokens, costs=costs)


def move_ns(num_tokens: int, *, costs: HandOverCosts) -> int:
    """Nanoseconds until the KV of so many tokens has arrived at the newer replica."""
    size_bytes = costs.queued_bytes + num_tokens * costs.kv_bytes_per_token
    return costs.setup_ns + math.ceil(size_bytes * NS_PER_S / costs.link_bytes_per_s)


def recompute_ns(num_tokens: int, *, costs: HandOverCosts) -> int:
    """Nanoseconds until the newer replica has computed so many tokens again."""
    ahead = costs.queued_tokens + num_tokens
    return math.ceil(ahead * NS_PER_S / costs.prefill_tokens_per_s)


def busiest_link_share(older: ExecutionPipeline, newer: ExecutionPipeline) -> float:
    """Share of a token's KV that the busiest direction of a worker's link carries, 0–1.

    Every block's KV goes from the worker that ran it to the one that will, at the same
    time as the others'; what stays on its worker does not travel. From `w0[0-3]` to
    `w1[0-1] → w2[2-3]` w0 sends all of it: 1. From `w1[0-1] → w0[2-3]` to `w1[0-3]`
    half of it travels.
    """
    assert older.num_blocks == newer.num_blocks, (older, newer)
    sends: Counter[WorkerId] = Counter()
    receives: Counter[WorkerId] = Counter()
    for source, target in zip(_runs(older), _runs(newer), strict=True):
        if source != target:
            sends[source] += 1
            receives[target] += 1
    busiest = max((*sends.values(), *receives.values()), default=0)
    return busiest / older.num_blocks


def _runs(pipeline: ExecutionPipeline) -> list[WorkerId]:
    """Who runs each block, in order."""
    return [stage.worker for stage in pipeline.stages for _ in stage.blocks]
