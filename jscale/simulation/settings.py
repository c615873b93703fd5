"""What a simulation is given: the machines, the model's costs, the system."""

import dataclasses
import math

from jscale.cluster.manager_policy import ManagerPolicy
from jscale.core.errors import ConfigError
from jscale.core.units import NS_PER_US


@dataclasses.dataclass(frozen=True)
class ClusterSpec:
    """Machines that are all alike, and what they take for things.

    A worker has one device; where it takes several accelerators to hold a model, they
    are one device with their rates together (`ModelCosts.num_accelerators`).

    Args:
      name: what people call it.
      num_hosts: machines.
      devices_per_host: workers that fit on one.
      nic_bytes_per_s: of a host's NIC, each direction for itself.
      local_bytes_per_s: between two workers of a host (NVLink), each direction.
      host_to_device_bytes_per_s: from a host's memory into one device.
      disk_bytes_per_s: what a host reads from its SSD, all its workers together.
      nics_per_host: ports; they are used together, as one of their rates' sum.
      hosts_per_leaf: hosts under a leaf switch; None: one switch carries all.
      leaf_bytes_per_s: between a leaf switch and the others, each direction.
      process_start_ns: from launch to attached, the accelerator's context included.
      executables_load_ns: loading compiled executables that were received.
      compile_ns: compiling them where none can be received.
      message_latency_ns: one way, of a message of the control plane or a stage.
      message_jitter_ns: up to so much more, at random.

    Raises:
      ConfigError: a number is out of its range.
    """

    name: str
    num_hosts: int
    devices_per_host: int
    nic_bytes_per_s: float
    local_bytes_per_s: float
    host_to_device_bytes_per_s: float
    disk_bytes_per_s: float
    nics_per_host: int = 1
    hosts_per_leaf: int | None = None
    leaf_bytes_per_s: float = math.inf
    process_start_ns: int = 0
    executables_load_ns: int = 0
    compile_ns: int = 0
    message_latency_ns: int = 50 * NS_PER_US
    message_jitter_ns: int = 0

    def __post_init__(self) -> None:
        for name in ("num_hosts", "devices_per_host", "nics_per_host"):
            _check(f"cluster {self.name}", name, getattr(self, name), least=1)
        if self.hosts_per_leaf is not None:
            _check(f"cluster {self.name}", "hosts_per_leaf", self.hosts_per_leaf, 1)
        for field in dataclasses.fields(self):
            if field.name.endswith(("_ns", "_per_s")):
                value = getattr(self, field.name)
                least = 0 if field.name.endswith("_ns") else 1
                _check(f"cluster {self.name}", field.name, value, least)

    @property
    def num_devices(self) -> int:
        """Workers that fit on all hosts."""
        return self.num_hosts * self.devices_per_host


@dataclasses.dataclass(frozen=True)
class ModelCosts:
    """A model as the simulated accelerator sees it.

    A step of n sequences in decode takes `decode_ns + n * decode_sequence_ns +
    c * decode_context_token_ns`, where c is the tokens of their contexts; tokens of
    prompts come on top at `prefill_tokens_per_s`.

    Args:
      name: what people call it.
      size_bytes: all weights.
      num_layers: decoder layers.
      num_blocks: blocks that it is cut into.
      prefill_tokens_per_s: of one worker that holds all of it.
      decode_ns: a step, however few decode.
      decode_sequence_ns: for each sequence besides.
      decode_context_token_ns: for each token of context besides.
      kv_bytes_per_token: of all layers.
      activation_bytes_per_token: what goes from stage to stage for a token.
      max_sequences: that a worker runs at a time.
      step_tokens_max: tokens of a step, prompts included; longer ones come in chunks.
      max_tokens: of context, prompt and output, that a worker has memory for.
      num_accelerators: that one worker takes.

    Raises:
      ConfigError: a number is out of its range.
    """

    name: str
    size_bytes: int
    num_layers: int
    num_blocks: int
    prefill_tokens_per_s: float
    decode_ns: int
    decode_sequence_ns: int = 0
    decode_context_token_ns: float = 0.0
    kv_bytes_per_token: int = 0
    activation_bytes_per_token: int = 0
    max_sequences: int = 64
    step_tokens_max: int = 512
    max_tokens: int = 1_000_000
    num_accelerators: int = 1

    def __post_init__(self) -> None:
        what = f"model {self.name}"
        for field in dataclasses.fields(self):
            if field.name == "name":
                continue
            may_be_zero = field.name.startswith(("kv_", "activation_", "decode_"))
            least = 0 if may_be_zero else 1
            _check(what, field.name, getattr(self, field.name), least)
        if self.num_blocks > self.num_layers:
            raise ConfigError(
                f"{what}: {self.num_blocks} blocks of {self.num_layers} layers: a "
                "block has at least one"
            )


@dataclasses.dataclass(frozen=True)
class System:
    """What is compared: the manager's policy, and how the network and loader do it.

    Args:
      name: what people call it.
      policy: how the manager chooses.
      num_chunks: of a multicast; None: 256, or fewer in clusters of more than 256
        devices.
      has_barrier: all sends of a step end before any of the next begins.
      barrier_ns: what that takes besides, each step.
      setup_ns: before a multicast's first chunk, to make its group.
      host_cache: which hosts have the model in memory: `none`, `one` (always exactly
        one copy in the cluster), `used` (those that had a worker lately), `all`.
      keep_cached_ns: how long `used` keeps it after the last worker left; None: always.
      is_instant: starts and loads take no time (what no system can do better than).

    Raises:
      ConfigError: a number is out of its range, or `host_cache` is none of those.
    """

    name: str
    policy: ManagerPolicy
    num_chunks: int | None = None
    has_barrier: bool = False
    barrier_ns: int = 0
    setup_ns: int = 0
    host_cache: str = "none"
    keep_cached_ns: int | None = None
    is_instant: bool = False

    def __post_init__(self) -> None:
        what = f"system {self.name}"
        _check(what, "num_chunks", self.num_chunks or 1, least=1)
        _check(what, "setup_ns", self.setup_ns, least=0)
        _check(what, "barrier_ns", self.barrier_ns, least=0)
        _check(what, "keep_cached_ns", self.keep_cached_ns or 0, least=0)
        if self.host_cache not in HOST_CACHES:
            raise ConfigError(
                f"{what}: host_cache {self.host_cache!r}: choose one of "
                f"{', '.join(HOST_CACHES)}"
            )


HOST_CACHES = ("none", "one", "used", "all")
"""What `System.host_cache` may be."""


@dataclasses.dataclass(frozen=True)
class ScaleRequest:
    """Somebody asks for so many workers at that moment."""

    at_ns: int
    num_workers: int


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something goes wrong, or right again, at that moment.

    Args:
      at_ns: when.
      kind: `kill-worker`, `kill-manager`, `kill-launcher`, `kill-gateway` (each is
        started again after a while, but a worker only if the manager wants one),
        `slow-link` (a worker's host has `share` of its rate), `cut-link` (nothing goes
        through), `heal-link` (all links are as they were).
      worker: index among the workers alive, modulo their number.
      share: of the rate, for `slow-link`.
    """

    at_ns: int
    kind: str
    worker: int = 0
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in FAULT_KINDS:
            raise ConfigError(
                f"fault {self.kind!r}: choose one of {', '.join(FAULT_KINDS)}"
            )
        _check(f"fault {self.kind}", "at_ns", self.at_ns, least=0)
        if not 0 < self.share <= 1:
            raise ConfigError(
                f"fault {self.kind}: share {self.share}: give more than 0, at most 1"
            )


FAULT_KINDS = (
    "kill-worker",
    "kill-manager",
    "kill-launcher",
    "kill-gateway",
    "slow-link",
    "cut-link",
    "heal-link",
)
"""What `Fault.kind` may be."""


def _check(what: str, name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ConfigError(f"{what}: {name} {value}: give at least {least}")
