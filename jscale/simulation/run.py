"""`simulate_run`: one system, one model, one trace."""

import itertools
from collections.abc import Callable, Sequence

from jscale.core.errors import ConfigError
from jscale.simulation.course import Run
from jscale.simulation.results import SimulationResult, TraceRequest
from jscale.simulation.settings import (
    ClusterSpec,
    Fault,
    ModelCosts,
    ScaleRequest,
    System,
)
from jscale.simulation.world import World


def simulate_run(
    cluster: ClusterSpec,
    model: ModelCosts,
    system: System,
    trace: Sequence[TraceRequest],
    seed: int = 0,
    *,
    num_workers: int = 1,
    scale_requests: Sequence[ScaleRequest] = (),
    faults: Sequence[Fault] = (),
    progress: Callable[[float], None] | None = None,
) -> SimulationResult:
    """What the trace's requests see, and what it costs.

    At time 0 `num_workers` workers hold the model and serve. The run ends when every
    request has, and nothing is left to happen. O(events · log events).

    Args:
      cluster: the machines.
      model: what a step of it takes.
      system: how it is scaled.
      trace: in order of arrival.
      seed: of all that is random (`ClusterSpec.message_jitter_ns`).
      num_workers: at the start; 0: a cold cluster.
      scale_requests: besides what an autoscaler asks for.
      faults: what goes wrong when.
      progress: is told from time to time which share of all requests has ended.

    Raises:
      ConfigError: the trace is out of order, or there are fewer devices than workers.
    """
    _check(cluster, trace, num_workers)
    world = World(cluster, model, system, trace, num_workers=num_workers, seed=seed)
    return Run(world, scale_requests, faults, progress=progress).result()


def _check(
    cluster: ClusterSpec, trace: Sequence[TraceRequest], num_workers: int
) -> None:
    if not 0 <= num_workers <= cluster.num_devices:
        raise ConfigError(
            f"num_workers {num_workers}: cluster {cluster.name} has "
            f"{cluster.num_devices} devices: give 0 to {cluster.num_devices}"
        )
    for number, (before, after) in enumerate(itertools.pairwise(trace)):
        if after.arrival_ns < before.arrival_ns:
            raise ConfigError(
                f"request {number + 1} arrives at {after.arrival_ns} ns, before "
                f"request {number}: sort the trace by arrival"
            )
