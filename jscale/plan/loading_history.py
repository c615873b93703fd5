"""What a policy brings over a whole scale-out: tokens while a model is being loaded."""

import dataclasses
from collections.abc import Iterator, Sequence

from jscale.core.ids import WorkerId
from jscale.core.topology import Topology
from jscale.core.units import NS_PER_S
from jscale.plan.cost import arrivals
from jscale.plan.execution import ExecutionPipeline, Holdings, PipelinePolicy
from jscale.plan.multicast_plan import MulticastPlan
from jscale.plan.pipeline_cost import (
    DEFAULT_COSTS,
    ServingCosts,
    handover_ns,
    throughput,
)


@dataclasses.dataclass(frozen=True)
class Moment:
    """What is held from a time on."""

    at_ns: int
    holdings: Holdings


@dataclasses.dataclass(frozen=True)
class LoadingHistory:
    """What it came to, from the first moment to the last and what it still costs then.

    Args:
      tokens: served, if hand-overs cost nothing.
      handed_over_tokens: those of them that were not, since they do.
      num_opened: pipelines that were opened, local replicas not counted.
      first_help_ns: when tokens per second first exceeded those of the beginning; None
        if never.
      lowest_tokens_per_s: between any two moments.
    """

    tokens: float
    handed_over_tokens: float
    num_opened: int
    first_help_ns: int | None
    lowest_tokens_per_s: float


def moments_of(
    plan: MulticastPlan,
    sources: Sequence[WorkerId],
    topology: Topology,
    *,
    num_blocks: int,
    size_bytes: int,
) -> Iterator[Moment]:
    """What sources and targets of a multicast hold, whenever a block is complete.

    Block i is chunk ⌊i b / num_blocks⌋ to the next block's first. Times are those of
    `cost.arrivals`; a block can be run as soon as its last chunk is there.
    """
    num_chunks = plan.num_chunks
    block_of = [chunk * num_blocks // num_chunks for chunk in range(num_chunks)]
    missing = {
        worker: [block_of.count(block) for block in range(num_blocks)]
        for worker in plan.members
        if worker not in sources
    }
    ready: dict[WorkerId, set[int]] = {
        worker: set(range(num_blocks)) if worker in sources else set()
        for worker in plan.members
    }
    yield Moment(0, Holdings(ready, num_blocks))
    for arrival in arrivals(plan, topology, size_bytes // num_chunks):
        block = block_of[arrival.chunk]
        missing[arrival.target][block] -= 1
        if not missing[arrival.target][block]:
            ready[arrival.target].add(block)
            yield Moment(arrival.time_ns, Holdings(ready, num_blocks))


def loading_history(
    policy: PipelinePolicy,
    moments: Sequence[Moment],
    costs: ServingCosts = DEFAULT_COSTS,
    *,
    context_tokens: int = 512,
) -> LoadingHistory:
    """Lets a policy open pipelines at every moment, with all the demand there can be.

    Args:
      policy: who opens what.
      moments: in order of time, at least one; the last ends it.
      costs: of the workers.
      context_tokens: of every sequence that is handed over, the prompt included.
    """
    current: tuple[ExecutionPipeline, ...] = ()
    tokens = lost = 0.0
    num_opened = 0
    first_help_ns: int | None = None
    rates: list[float] = []
    ends_ns = [moment.at_ns for moment in moments[1:]] + [moments[-1].at_ns]
    for moment, end_ns in zip(moments, ends_ns, strict=True):
        proposed = policy.propose(moment.holdings, current)
        num_opened += sum(not p.is_local and p not in current for p in proposed)
        lost += handover_tokens(current, proposed, costs, context_tokens)
        if end_ns > moment.at_ns:
            rate = throughput(proposed, costs).tokens_per_s
            tokens += rate * (end_ns - moment.at_ns) / NS_PER_S
            rates.append(rate)
            if first_help_ns is None and rate > rates[0] * (1 + 1e-9):
                first_help_ns = moment.at_ns
        current = proposed
    return LoadingHistory(
        tokens=tokens,
        handed_over_tokens=lost,
        num_opened=num_opened,
        first_help_ns=first_help_ns,
        lowest_tokens_per_s=min(rates, default=0.0),
    )


def handover_tokens(
    before: Sequence[ExecutionPipeline],
    after: Sequence[ExecutionPipeline],
    costs: ServingCosts = DEFAULT_COSTS,
    context_tokens: int = 512,
) -> float:
    """Tokens that are not served as sequences of closed pipelines are handed over.

    They go to the pipeline that serves one of the same workers, which they hold up
    while their KV is computed or moved; full as pipelines are, it is all of them.
    """
    kept = set(after).intersection(before)
    opened = [pipeline for pipeline in after if pipeline not in kept]
    served = throughput(after, costs)
    rate_of = dict(zip(after, served.tokens_per_s_of, strict=True))
    lost = 0.0
    for older in before:
        if older in kept:
            continue
        heirs = [newer for newer in opened if newer.head in older.workers]
        heirs = heirs or [
            p for p in after if not set(p.workers).isdisjoint(older.workers)
        ]
        if heirs:
            num_sequences = len(older.stages) * costs.sequences_per_step
            context = num_sequences * context_tokens
            stall_ns = handover_ns(older, heirs[0], context, costs)
            lost += rate_of[heirs[0]] * stall_ns / NS_PER_S
    return lost
