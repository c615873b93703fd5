"""Clusters, loads and faults drawn from a seed."""

import dataclasses
from collections.abc import Callable

from jscale.cluster.manager_policy import ManagerPolicy
from jscale.core.units import NS_PER_MS, NS_PER_S, NS_PER_US
from jscale.simulation.course import Run
from jscale.simulation.draws import Draws
from jscale.simulation.multicasts import STALL_NS
from jscale.simulation.results import TraceRequest
from jscale.simulation.settings import (
    FAULT_KINDS,
    ClusterSpec,
    Fault,
    ModelCosts,
    ScaleRequest,
    System,
)
from jscale.simulation.world import World
from tests.simulation.invariants import check_always, check_rest

END_NS = 4 * NS_PER_S
"""Faults and requests come before."""

REST_NS = STALL_NS + NS_PER_S
"""Nothing may change any more in so long, in which members give up who wait in vain."""

EVENTS_MAX = 400_000
"""A run that takes more goes round in circles."""


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What a seed stands for."""

    seed: int
    cluster: ClusterSpec
    model: ModelCosts
    system: System
    trace: tuple[TraceRequest, ...]
    num_workers: int
    scale_requests: tuple[ScaleRequest, ...]
    faults: tuple[Fault, ...]


def draw(seed: int) -> Scenario:
    """A small cluster under load, scaled, and disturbed up to six times."""
    draws = Draws(seed)
    num_hosts, per_host = 2 + draws.below(4), 1 + draws.below(2)
    num_devices = num_hosts * per_host
    cluster = ClusterSpec(
        name=f"seed-{seed}",
        num_hosts=num_hosts,
        devices_per_host=per_host,
        nic_bytes_per_s=1e9,
        local_bytes_per_s=5e9,
        host_to_device_bytes_per_s=4e9,
        disk_bytes_per_s=1e9,
        process_start_ns=draws.below(300) * NS_PER_MS,
        executables_load_ns=draws.below(50) * NS_PER_MS,
        compile_ns=draws.below(500) * NS_PER_MS,
        message_latency_ns=100 * NS_PER_US,
        message_jitter_ns=draws.below(20) * NS_PER_MS,
    )
    num_blocks = 1 + draws.below(4)
    model = ModelCosts(
        name="toy",
        size_bytes=(200 + draws.below(800)) * 1_000_000,
        num_layers=8,
        num_blocks=num_blocks,
        prefill_tokens_per_s=5_000,
        decode_ns=10 * NS_PER_MS,
        decode_context_token_ns=float(draws.below(2) * 1000),
        activation_bytes_per_token=1_000,
        max_sequences=2 + draws.below(6),
        step_tokens_max=64,
        max_tokens=400 + draws.below(2000),
    )
    system = System("jscale", ManagerPolicy(), num_chunks=num_blocks * 4)
    return Scenario(
        seed=seed,
        cluster=cluster,
        model=model,
        system=system,
        trace=_trace(draws),
        num_workers=1 + draws.below(2),
        scale_requests=tuple(
            ScaleRequest(draws.below(END_NS), 1 + draws.below(num_devices))
            for _ in range(1 + draws.below(3))
        ),
        faults=_faults(draws),
    )


def run(scenario: Scenario, say: Callable[[str], None] | None = None) -> str:
    """The transcript of a run, checked after every event.

    Raises:
      AssertionError: an invariant does not hold.
    """
    lines: list[str] = []
    world = World(
        scenario.cluster,
        scenario.model,
        scenario.system,
        scenario.trace,
        num_workers=scenario.num_workers,
        seed=scenario.seed,
        transcript=say or lines.append,
    )
    course = Run(world, scenario.scale_requests, scenario.faults, rest_ns=REST_NS)
    while course.step():
        check_always(world)
        assert world.clock.num_events < EVENTS_MAX, "it does not come to rest"
    failed = [record for record in world.recorder.requests if record.error]
    assert not failed, failed
    check_rest(world)
    return "\n".join(lines)


def _trace(draws: Draws) -> tuple[TraceRequest, ...]:
    arrivals = sorted(draws.below(END_NS) for _ in range(5 + draws.below(25)))
    return tuple(
        TraceRequest(at_ns, 1 + draws.below(200), 1 + draws.below(40))
        for at_ns in arrivals
    )


def _faults(draws: Draws) -> tuple[Fault, ...]:
    """Up to six, and at last all links are healed."""
    faults = [
        Fault(
            draws.below(END_NS),
            FAULT_KINDS[draws.below(len(FAULT_KINDS))],
            worker=draws.below(100),
            share=(1 + draws.below(10)) / 10,
        )
        for _ in range(draws.below(7))
    ]
    return (*sorted(faults, key=lambda f: f.at_ns), Fault(END_NS, "heal-link"))
