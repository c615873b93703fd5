"""The systems that are compared: the same engine, each with the choices of its paper.

What differs is who sends what to whom, what is done while blocks arrive, when workers
are added and let go, and which hosts keep a copy. Everything else is the same for all:
the machines, the model's costs, the gateway and the batching.

Those that add workers in proportion to the queue look at it each half second, as
λScale's artifact does for all that it compares, and keep an idle worker for as long as
loading one takes, as ServerlessLLM's evaluation does.
"""

import dataclasses
from collections.abc import Callable, Sequence

from jscale.cluster.manager_policy import ManagerPolicy
from jscale.cluster.number_wanted import ScalingBounds
from jscale.core.errors import ConfigError
from jscale.core.units import NS_PER_MS, NS_PER_S, NS_PER_US
from jscale.plan.pipeline_policies import BlitzScalePolicy, LambdaScalePolicy
from jscale.plan.scaling_policy import (
    IDEAL,
    Anticipating,
    QueueProportional,
    UtilisationBound,
)
from jscale.simulation.settings import ClusterSpec, ModelCosts, System

POLL_NS = 500 * NS_PER_MS
"""How often λScale's artifact looks at the queue, for models in memory."""

LAMBDA_SCALE_BLOCKS = 16
LAMBDA_SCALE_BARRIER_NS = 8_500 * NS_PER_US
"""λScale moves a model in 16 blocks, all of a step before any of the next. What its
controller takes between two steps is fitted: 8.5 ms bring its times for 7B and 13B, and
FaaSNet's in the same system, within 15 % of what it published."""

NCCL_TENSOR_NS = 1600 * NS_PER_US
NCCL_GROUP_NS = 100 * NS_PER_MS
"""NCCL as λScale ran it: a broadcast for each tensor, of 1.6 ms besides its bytes
(fitted to its times for 7B and 13B), in a group that is made when it is needed, which
takes 100 ms (BlitzScale)."""

HOST_CACHE_NS = 300 * NS_PER_S
"""How long a host keeps a model in memory that it does not use. An assumption."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """Where a system runs, which some of its choices depend on."""

    cluster: ClusterSpec
    model: ModelCosts
    num_min: int
    num_max: int

    @property
    def network_ns(self) -> int:
        """What a host takes to receive the model, at least."""
        rate = self.cluster.nic_bytes_per_s * self.cluster.nics_per_host
        return round(self.model.size_bytes / rate * NS_PER_S)

    @property
    def bus_ns(self) -> int:
        """What a device takes to load the model from its host's memory."""
        rate = self.cluster.host_to_device_bytes_per_s
        return round(self.model.size_bytes / rate * NS_PER_S)

    @property
    def disk_ns(self) -> int:
        """What a host takes to read the model from its disk."""
        return round(self.model.size_bytes / self.cluster.disk_bytes_per_s * NS_PER_S)

    def bounds(self, load_ns: int) -> ScalingBounds:
        """Between how many workers, for a system that loads in so long."""
        return ScalingBounds(
            num_min=self.num_min,
            num_max=self.num_max,
            scale_out_ns=self.cluster.process_start_ns + load_ns,
        )


def jscale(setting: Setting) -> System:
    """What `jscale-manager` does by default, with its own autoscaler."""
    policy = ManagerPolicy(
        scaling=Anticipating(), bounds=setting.bounds(setting.network_ns)
    )
    return System("jscale", policy, host_cache="one")


def lambda_scale(setting: Setting) -> System:
    """λScale as published (arXiv 2502.09922)."""
    policy = dataclasses.replace(
        _queued(setting, 3 * setting.network_ns // 2),
        executes_while_loading=True,
        execution=LambdaScalePolicy(num_sources=None),
    )
    return System(
        "lambda-scale",
        policy,
        num_chunks=LAMBDA_SCALE_BLOCKS,
        has_barrier=True,
        barrier_ns=LAMBDA_SCALE_BARRIER_NS,
        host_cache="one",
    )


def blitzscale(setting: Setting) -> System:
    """BlitzScale (arXiv 2412.17246): serial chains, pairs that serve while they load.

    Bounds of 0.5 and 0.7 and 1.5 s until a worker goes are those of its artifact's
    prefill workers.
    """
    policy = ManagerPolicy(
        execution=BlitzScalePolicy(),
        multicast_kind="chain",
        scaling=UtilisationBound(0.7, 0.5, keep_alive_ns=3 * NS_PER_S // 2),
        bounds=setting.bounds(setting.network_ns),
    )
    return System("blitzscale", policy, host_cache="one")


def faasnet(setting: Setting) -> System:
    """FaaSNet (ATC'21) as λScale runs it: a binary tree, then serve."""
    policy = _queued(setting, 2 * setting.network_ns, multicast_kind="tree")
    return System(
        "faasnet",
        policy,
        num_chunks=LAMBDA_SCALE_BLOCKS,
        has_barrier=True,
        barrier_ns=LAMBDA_SCALE_BARRIER_NS,
        host_cache="one",
    )


def nccl(setting: Setting) -> System:
    """A broadcast round a ring whose group exists beforehand, then serve."""
    policy = _queued(setting, setting.network_ns, multicast_kind="chain")
    return System("nccl", policy, host_cache="one")


def nccl_grouped(setting: Setting) -> System:
    """NCCL as λScale ran it: tensor by tensor, in a group made at that moment."""
    policy = _queued(setting, 2 * setting.network_ns, multicast_kind="chain")
    return System(
        "nccl-grouped",
        policy,
        num_chunks=9 * setting.model.num_layers + 3,  # Tensors of a Llama.
        has_barrier=True,
        barrier_ns=NCCL_TENSOR_NS,
        setup_ns=NCCL_GROUP_NS,
        host_cache="one",
    )


def serverlessllm_ssd(setting: Setting) -> System:
    """ServerlessLLM (OSDI'24) where no host has the model in memory."""
    return System(
        "serverlessllm-ssd", _queued(setting, setting.disk_ns, loads_locally=True)
    )


def serverlessllm_host(setting: Setting) -> System:
    """ServerlessLLM where hosts keep in memory what they used lately."""
    return System(
        "serverlessllm-host",
        _queued(setting, setting.disk_ns, loads_locally=True),
        host_cache="used",
        keep_cached_ns=HOST_CACHE_NS,
    )


def host_memory(setting: Setting) -> System:
    """Every host has the model in memory at all times: BlitzScale's AllCache."""
    return System(
        "host-memory",
        _queued(setting, setting.bus_ns, loads_locally=True),
        host_cache="all",
    )


def ideal(setting: Setting) -> System:
    """Starts and loads in no time, and keeps nobody who is not needed."""
    policy = ManagerPolicy(
        executes_while_loading=False,
        loads_locally=True,
        scaling=IDEAL,
        bounds=setting.bounds(0),
    )
    return System("ideal", policy, host_cache="all", is_instant=True)


SYSTEMS: dict[str, Callable[[Setting], System]] = {
    "jscale": jscale,
    "lambda-scale": lambda_scale,
    "blitzscale": blitzscale,
    "faasnet": faasnet,
    "nccl": nccl,
    "nccl-grouped": nccl_grouped,
    "serverlessllm-ssd": serverlessllm_ssd,
    "serverlessllm-host": serverlessllm_host,
    "host-memory": host_memory,
    "ideal": ideal,
}
"""Systems by name; the first is ours."""


def find_systems(
    names: str | System | Sequence[str | System], setting: Setting
) -> tuple[System, ...]:
    """The systems of these names; `all` are all. A system is itself.

    Raises:
      ConfigError: there is none of a name, or one is named twice.
    """
    asked = [names] if isinstance(names, str | System) else list(names)
    if asked == ["all"]:
        asked = list(SYSTEMS)
    systems = tuple(
        each if isinstance(each, System) else _find(each, setting) for each in asked
    )
    found = [system.name for system in systems]
    for name in found:
        if found.count(name) > 1:
            raise ConfigError(f"system {name}: it is named twice: name it once")
    if not systems:
        raise ConfigError(f"no system: choose some of {', '.join(SYSTEMS)}, or all")
    return systems


def _find(name: str, setting: Setting) -> System:
    if name not in SYSTEMS:
        raise ConfigError(
            f"system {name!r}: choose some of {', '.join(SYSTEMS)}, or all"
        )
    return SYSTEMS[name](setting)


def _queued(
    setting: Setting,
    load_ns: int,
    *,
    multicast_kind: str | None = None,
    loads_locally: bool = False,
) -> ManagerPolicy:
    """Workers in proportion to the queue, kept idle for as long as loading takes."""
    return ManagerPolicy(
        multicast_kind=multicast_kind,
        executes_while_loading=False,
        loads_locally=loads_locally,
        scaling=QueueProportional(every_ns=POLL_NS, keep_alive_ns=load_ns),
        bounds=setting.bounds(load_ns),
    )
