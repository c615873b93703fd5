"""What a slow member costs the others: known beforehand, or found out on the way."""

import random
import statistics
from collections.abc import Sequence

from jscale.core.ids import WorkerId
from jscale.core.topology import Topology
from jscale.core.units import MIB, NS_PER_MS
from jscale.plan.arrangement import multicast_over
from jscale.plan.cost import arrivals, completion_times_ns
from jscale.plan.kinds import multicast
from jscale.plan.multicast_plan import MulticastPlan
from jscale.plan.stragglers import StragglerWatch, with_rates

RATE_BYTES_PER_S = 50e6
NUM_CHUNKS = 256
REPORT_EVERY_NS = 200 * NS_PER_MS
HEADS = ("not known", "known", "found out")


def print_stragglers(num_tried: int, seed: int = 0) -> None:
    """When the others are complete, as a ratio to a run with no slow member."""
    print(
        f"\na member at a quarter of the rate, 1 to 3 sources, 4 to 24 targets, "
        f"{NUM_CHUNKS} chunks, {num_tried} each:\nthe others' time × undisturbed, mean "
        f"(worst)\n{'':>22}" + "".join(f"{head:>16}" for head in HEADS)
    )
    for size_bytes in (64 * MIB, 256 * MIB, 1024 * MIB):
        for kind in ("binomial", "chain"):
            rng = random.Random(f"{seed} {size_bytes} {kind}")
            rows = [_ratios(rng, size_bytes, kind) for _ in range(num_tried)]
            cells = (
                f"{statistics.mean(column):.3f} ({max(column):.2f})"
                for column in zip(*rows, strict=True)
            )
            line_s = size_bytes / RATE_BYTES_PER_S
            name = f"{line_s:.1f} s, {kind}"
            print(f"{name:>22}" + "".join(f"{cell:>16}" for cell in cells))


def _ratios(
    rng: random.Random, size_bytes: int, kind: str
) -> tuple[float, float, float]:
    """Not known at all, known beforehand, found out while running."""
    chunk_size_bytes = size_bytes // NUM_CHUNKS
    plan = multicast(rng.randint(1, 3), rng.randint(4, 24), NUM_CHUNKS, kind=kind)
    slow = rng.choice(plan.targets)
    others = [target for target in plan.targets if target != slow]
    fast_links = Topology.uniform(plan.members, RATE_BYTES_PER_S)
    links = with_rates(fast_links, {slow: RATE_BYTES_PER_S / 4})

    def last_ns(used: MulticastPlan, topology: Topology) -> int:
        times_ns = completion_times_ns(used, topology, chunk_size_bytes)
        return max(times_ns[other] for other in others)

    undisturbed_ns = last_ns(plan, fast_links)
    arranged = multicast_over(links, plan.sources, plan.targets, NUM_CHUNKS)
    found_out_ns = _found_out_ns(plan, links, fast_links, others, size_bytes)
    return (
        last_ns(plan, links) / undisturbed_ns,
        last_ns(arranged, links) / undisturbed_ns,
        found_out_ns / undisturbed_ns,
    )


def _found_out_ns(
    plan: MulticastPlan,
    links: Topology,
    fast_links: Topology,
    others: Sequence[WorkerId],
    size_bytes: int,
) -> int:
    """When the others are complete if who is slow is found by what members report."""
    chunk_size_bytes = size_bytes // NUM_CHUNKS
    watch = StragglerWatch(plan, size_bytes, 0)
    held: dict[WorkerId, set[int]] = {target: set() for target in plan.targets}
    told_ns = dict.fromkeys(plan.targets, 0)
    begin_ns, has_changed, last_ns = 0, True, 0
    while has_changed:
        has_changed = False
        begin_with = {target: frozenset(chunks) for target, chunks in held.items()}
        for arrival in arrivals(plan, links, chunk_size_bytes, held=begin_with):
            target, now_ns = arrival.target, begin_ns + arrival.time_ns
            held[target].add(arrival.chunk)
            if target in others and len(held[target]) == NUM_CHUNKS:
                last_ns = now_ns
            if now_ns - told_ns[target] < REPORT_EVERY_NS:
                continue
            told_ns[target] = now_ns
            held_bytes = len(held[target]) * chunk_size_bytes
            if watch.reported(target, held_bytes, now_ns):
                measured = with_rates(fast_links, watch.rates_bytes_per_s)
                plan = multicast_over(
                    measured, plan.sources, plan.targets, NUM_CHUNKS, held=held
                )
                watch.follow(plan, now_ns)
                begin_ns, has_changed = now_ns, True
                break
    return last_ns
