"""How a manager chooses: what differs between jscale and what it is compared with."""

import dataclasses

from jscale.cluster.number_wanted import ScalingBounds
from jscale.plan.execution import PipelinePolicy
from jscale.plan.execution_policy import ExecutionPolicy
from jscale.plan.scaling_policy import ScalingPolicy


@dataclasses.dataclass(frozen=True)
class ManagerPolicy:
    """How the manager chooses.

    Attributes:
      execution: which pipelines are open while blocks arrive.
      multicast_kind: a key of `PLAN_KINDS`; None: what suits the links.
      executes_while_loading: workers serve with the blocks they have.
      loads_locally: each worker reads a copy of its own; nothing is multicast.
      scaling: how the load that gateways report decides how many workers there are;
        None: it does not, people do.
      bounds: between what the load may decide.
    """

    execution: PipelinePolicy = dataclasses.field(default_factory=ExecutionPolicy)
    multicast_kind: str | None = None
    executes_while_loading: bool = True
    loads_locally: bool = False
    scaling: ScalingPolicy | None = None
    bounds: ScalingBounds = dataclasses.field(default_factory=ScalingBounds)
