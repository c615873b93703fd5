"""Two models multicast at once over the same links: how much each costs the other."""

import random
import statistics

from jscale.core.ids import WorkerId
from jscale.core.topology import Topology
from jscale.core.units import MIB
from jscale.plan.arrangement import multicast_over
from jscale.plan.cost import completion_times_ns
from jscale.plan.fair_share import completion_times_together_ns, links_left
from jscale.plan.kinds import multicast
from jscale.plan.multicast_plan import MulticastPlan

RATE_BYTES_PER_S = 50e9
NUM_HOSTS = 24


def print_sharing(num_tried: int, seed: int = 0) -> None:
    """Each plan's time together × its time alone."""
    print(
        f"\ntwo multicasts at once, {num_tried} pairs each: "
        "time × alone, mean (worst) of both"
    )
    rng = random.Random(seed)
    cases = {
        "the same members": [_same(rng) for _ in range(num_tried)],
        "random members": [_random(rng, is_arranged=False) for _ in range(num_tried)],
        "… arranged beside it": [
            _random(rng, is_arranged=True) for _ in range(num_tried)
        ],
    }
    for name, pairs in cases.items():
        ratios = [ratio for pair in pairs for ratio in pair]
        mean, worst = statistics.mean(ratios), max(ratios)
        print(f"{name:>22}{f'{mean:.2f} ({worst:.2f})':>16}")


def _same(rng: random.Random) -> list[float]:
    """The same sources and targets, of unlike sizes, the second a little later."""
    num_sources = rng.randint(1, 3)
    num_targets = rng.randint(1, 20)
    plans = [
        multicast(num_sources, num_targets, rng.randint(16, 256)) for _ in range(2)
    ]
    return _ratios(rng, plans)


def _random(rng: random.Random, *, is_arranged: bool) -> list[float]:
    """Each of three holders could send; targets overlap by chance."""
    workers = [WorkerId(f"w{n}") for n in range(NUM_HOSTS)]
    holders, others = workers[:3], workers[3:]
    plans: list[MulticastPlan] = []
    for _ in range(2):
        targets = rng.sample(others, rng.randint(2, 16))
        num_chunks = rng.randint(16, 256)
        if is_arranged and plans:
            left = links_left(_links(), plans)
            plans.append(multicast_over(left, holders, targets, num_chunks))
        else:
            plans.append(multicast(holders[:1], targets, num_chunks))
    return _ratios(rng, plans)


def _ratios(rng: random.Random, plans: list[MulticastPlan]) -> list[float]:
    starts_ns = [0, rng.randrange(0, 1_000_000)]
    sizes = [MIB, MIB]
    together = completion_times_together_ns(plans, _links(), sizes, starts_ns=starts_ns)
    return [
        max(times.values()) / max(completion_times_ns(plan, _links(), MIB).values())
        for plan, times in zip(plans, together, strict=True)
    ]


def _links() -> Topology:
    workers = [WorkerId(f"w{n}") for n in range(NUM_HOSTS)]
    return Topology.uniform(workers, RATE_BYTES_PER_S)
