"""What multicast plans cost: a member's own schedule, and time on modelled links.

python bench/plans.py
"""

import argparse
import statistics
import time
from collections.abc import Sequence

from plan_repairs import print_repairs
from plan_sharing import print_sharing
from plan_stragglers import print_stragglers

from jscale.core.ids import WorkerId
from jscale.core.topology import Host, Leaf, Nic, Topology
from jscale.core.units import MIB, NS_PER_S
from jscale.plan.arrangement import multicast_over
from jscale.plan.binomial import receive_schedule
from jscale.plan.cost import completion_times_ns, coverage_time_ns
from jscale.plan.kinds import multicast
from jscale.plan.multicast_plan import MulticastPlan

RATE_BYTES_PER_S = 50e9
KINDS = ("binomial", "chain", "tree", "flat", "scatter")


def main() -> None:
    options = _parse_options()
    _print_schedules(options.num_members, options.num_chunks, options.num_tried)
    _print_kinds()
    _print_links()
    print_repairs(options.num_faults)
    print_stragglers(options.num_faults)
    print_sharing(options.num_faults)
    _print_speed()


def _print_schedules(num_members: int, num_chunks: int, num_tried: int) -> None:
    """How long members take to know all that they send and receive."""
    print(f"own schedule, N = {num_members}, b = {num_chunks}: ms, median (worst)")
    for num_sources in (1, 4):
        took_ms = []
        stride = max(1, num_members // num_tried)
        for index in range(0, num_members, stride):
            receive_schedule.cache_clear()
            started_s = time.perf_counter()
            plan = multicast(num_sources, num_members - num_sources, num_chunks)
            member = plan.members[index]
            num_transfers = sum(1 for _ in plan.sends(member))
            num_transfers += sum(1 for _ in plan.receives(member))
            took_ms.append((time.perf_counter() - started_s) * 1e3)
            assert num_transfers > 0
        median = statistics.median(took_ms)
        print(f"  {num_sources} sources: {median:.1f} ({max(took_ms):.1f})")


def _print_kinds() -> None:
    """Equal links: last target complete, and all together, as ratios to size / rate."""
    print("\nequal links, 256 chunks: last target complete (targets together) × line")
    print(f"{'sources → targets':>18}" + "".join(f"{kind:>16}" for kind in KINDS))
    for num_sources, num_targets in ((1, 7), (2, 8), (1, 11), (4, 28), (1, 63)):
        cells = []
        for kind in KINDS:
            plan = multicast(num_sources, num_targets, 256, kind=kind)
            topology = Topology.uniform(plan.members, RATE_BYTES_PER_S)
            last, together = _ratios(plan, topology)
            cells.append(f"{last:.3f} ({together:.3f})")
        row = "".join(f"{cell:>16}" for cell in cells)
        print(f"{f'{num_sources} → {num_targets}':>18}{row}")


def _print_links() -> None:
    """Unequal links: the plan that knows them against the one that does not."""
    print("\nunequal links, 256 chunks: mean and last target complete × line")
    print(f"{'':>34}{'regardless':>18}{'arranged':>18}  as")
    fast = Nic(RATE_BYTES_PER_S, RATE_BYTES_PER_S)
    slow = Nic(RATE_BYTES_PER_S / 4, RATE_BYTES_PER_S / 4)
    busy = Nic(RATE_BYTES_PER_S, RATE_BYTES_PER_S, outbound_busy=0.5)
    cut = RATE_BYTES_PER_S
    cases: list[tuple[str, int, Topology]] = [
        ("2 → 6, one source serves", 2, _hosts([busy] + [fast] * 7)),
        ("1 → 7, one target at a quarter", 1, _hosts([fast] * 3 + [slow] + [fast] * 4)),
        (
            "1 → 15, 4 leaves, 4:1 between",
            1,
            _hosts([fast] * 16, "abcd", tuple(Leaf(n, cut, cut) for n in "abcd")),
        ),
        ("1 → 15, two workers a host", 1, _pairs(fast, 8)),
    ]
    for name, num_sources, topology in cases:
        workers = sorted(
            (worker for host in topology.hosts for worker in host.workers),
            key=lambda worker: int(worker[1:]),
        )
        sources, targets = workers[:num_sources], workers[num_sources:]
        plans = (
            multicast(sources, targets, 256),
            multicast_over(topology, sources, targets, 256),
        )
        cells = "".join(f"{_mean_and_last(plan, topology):>18}" for plan in plans)
        print(f"{name:>34}{cells}  {plans[1].label}")


def _print_speed() -> None:
    """How long it takes to compute all that."""
    print("\ncost model and arrangement: CPU seconds to compute, 256 chunks")
    for num_targets in (7, 63, 255):
        workers = [WorkerId(f"w{n}") for n in range(num_targets + 1)]
        topology = Topology.uniform(workers, RATE_BYTES_PER_S)
        started_s = time.process_time()
        completion_times_ns(multicast(1, num_targets, 256), topology, MIB)
        modelled_s = time.process_time()
        multicast_over(topology, workers[:1], workers[1:], 256)
        arranged_s = time.process_time()
        print(
            f"  1 → {num_targets}: model {modelled_s - started_s:.2f}, "
            f"arrangement {arranged_s - modelled_s:.2f}"
        )
    for kind in ("binomial", "chain"):
        plan = multicast(1, 10_000, 16, kind=kind)
        topology = Topology.uniform(plan.members, RATE_BYTES_PER_S)
        started_s = time.process_time()
        completion_times_ns(plan, topology, MIB)
        took_s = time.process_time() - started_s
        print(f"  1 → 10,000, 16 chunks, {kind}: model {took_s:.1f}")


def _ratios(plan: MulticastPlan, topology: Topology) -> tuple[float, float]:
    line_ns = plan.num_chunks * MIB / RATE_BYTES_PER_S * NS_PER_S
    last_ns = max(completion_times_ns(plan, topology, MIB).values())
    return last_ns / line_ns, coverage_time_ns(plan, topology, MIB) / line_ns


def _mean_and_last(plan: MulticastPlan, topology: Topology) -> str:
    line_ns = plan.num_chunks * MIB / RATE_BYTES_PER_S * NS_PER_S
    times_ns = completion_times_ns(plan, topology, MIB).values()
    return f"{statistics.mean(times_ns) / line_ns:.2f}, {max(times_ns) / line_ns:.2f}"


def _hosts(
    nics: Sequence[Nic], leaf_names: str = " ", leaves: tuple[Leaf, ...] = ()
) -> Topology:
    """A worker a host; neighbours by number under different leaves."""
    hosts = (
        Host((WorkerId(f"w{n}"),), (nic,), leaf_names[n % len(leaf_names)])
        for n, nic in enumerate(nics)
    )
    return Topology(tuple(hosts), leaves)


def _pairs(nic: Nic, num_hosts: int) -> Topology:
    """Two workers a host, joined by eight times the rate of its NIC."""
    hosts = (
        Host(
            (WorkerId(f"w{n}"), WorkerId(f"w{n + num_hosts}")),
            (nic,),
            local_bytes_per_s=8 * RATE_BYTES_PER_S,
        )
        for n in range(num_hosts)
    )
    return Topology(tuple(hosts))


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num_members", type=int, default=1024)
    parser.add_argument("--num_chunks", type=int, default=1024)
    parser.add_argument("--num_tried", type=int, default=64, help="members timed")
    parser.add_argument("--num_faults", type=int, default=15, help="repaired, each")
    return parser.parse_args()


if __name__ == "__main__":
    main()
