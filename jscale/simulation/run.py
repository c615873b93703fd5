"""`simulate_run`: one system, one model, one trace."""

from collections.abc import Sequence

from jscale.simulation.results import SimulationResult, TraceRequest
from jscale.simulation.settings import (
    ClusterSpec,
    Fault,
    ModelCosts,
    ScaleRequest,
    System,
)


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
) -> SimulationResult:
    """What the trace's requests see, and what it costs.

    At time 0 `num_workers` workers hold the model and serve. The run ends when every
    request has, and nothing is left to happen. O(events · log events).

    Args:
      cluster: the machines.
      model: what a step of it takes.
      system: how it is scaled.
      trace: in order of arrival.
      seed: of all that is random (delays).
      num_workers: at the start; 0: a cold cluster.
      scale_requests: besides what an autoscaler asks for.
      faults: what goes wrong when.

    Raises:
      ConfigError: the trace is out of order, or there are fewer devices than workers.
    """
    raise NotImplementedError
