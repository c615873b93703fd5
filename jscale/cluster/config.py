"""What a manager and a worker are told before they start."""

import dataclasses
from collections.abc import Collection

from jscale.cluster.number_wanted import ScalingBounds
from jscale.core.chunks import CHUNK_SIZE_BYTES_MAX
from jscale.core.errors import ConfigError
from jscale.engine.config import MOVES_KV
from jscale.plan.hypercube import HypercubePlan
from jscale.plan.kinds import PLAN_KINDS
from jscale.plan.scaling_policy import SCALING_POLICIES, ScalingPolicy
from jscale.store.device_memory import DEVICE_MEMORY_KINDS
from jscale.store.host_tier import HOST_TIER_DIR, HostTierConfig
from jscale.transport.rdma_options import RETRY_S, RdmaOptions, parse_devices
from jscale.transport.schemes import demanded_scheme

CACHE_DIR = "~/.cache/jscale"

CONTEXT_MAX_DEFAULT = 4096
"""Tokens of a sequence unless more are asked for: contexts that models are trained for
(128 K) would take all memory for KV pages."""

AUTO = "auto"
SERVED_PLAN_KINDS = (AUTO, *sorted(PLAN_KINDS.keys() - {HypercubePlan.kind}))
"""How a manager may be told to send blocks; a hypercube takes powers of two only."""

COMPUTE_DTYPES = ("float32", "bfloat16")

AUTOSCALE_OFF = "off"
"""People decide how many workers there are."""


@dataclasses.dataclass(frozen=True)
class ManagerConfig:
    """Which model is served, by how many workers, and how they share it.

    Attributes:
      model_path: a block store, or a checkpoint that is converted on first use.
      cluster_token: the secret that every process of the cluster shows.
      listen_address: HOST:PORT; port 0 takes a free one, told by `ready_file`.
      num_workers: workers wanted at the start; None takes as many as attach.
      autoscale: how the load decides how many there are from then on, a key of
        `SCALING_POLICIES`; or off.
      min_workers: fewer it never wants; 0 lets the model scale to zero.
      max_workers: more it never wants; to be given where it is not off.
      ready_file: written with the real address, and nothing else, once the manager
        listens; None writes none.
      cache_dir: where converted checkpoints go.
      plan_kind: how blocks travel from the workers that hold them; auto: as suits
        the links.
      executes_while_loading: targets serve with the blocks they have; without, a
        worker serves once it holds the whole model.
      chunk_size_bytes: what travels at once; None: as suits the size of the model.
      kv_mib: memory of a worker for KV pages at most, MiB; fewer pages do where
        `max_sequences` whole contexts need fewer.
      page_tokens: tokens of a KV page.
      max_sequences: sequences that one replica decodes together.
      step_rows: tokens that one step computes at most, prompts included.
      max_context: tokens of a sequence at most; None: as the model allows.
      compute_dtype: element type of the arithmetic.
      moves_kv: when sequences that are handed over take their KV along: where that is
        sooner than computing it again (`auto`), always, or never.
    """

    model_path: str
    cluster_token: str
    listen_address: str = "127.0.0.1:0"
    num_workers: int | None = 1
    autoscale: str = AUTOSCALE_OFF
    min_workers: int = 1
    max_workers: int | None = None
    ready_file: str | None = None
    cache_dir: str = CACHE_DIR
    plan_kind: str = AUTO
    executes_while_loading: bool = True
    chunk_size_bytes: int | None = None
    kv_mib: int = 2048
    page_tokens: int = 64
    max_sequences: int = 16
    step_rows: int = 128
    max_context: int | None = None
    compute_dtype: str = "float32"
    moves_kv: str = "auto"

    def __post_init__(self) -> None:
        if not self.model_path:
            raise ConfigError("--model is empty: give the path of a model")
        _require_at_least("num_workers", self.num_workers, 0)
        _require_at_least("chunk_size_bytes", self.chunk_size_bytes, 1024)
        if (self.chunk_size_bytes or 0) > CHUNK_SIZE_BYTES_MAX:
            raise ConfigError(
                f"chunk_size_bytes is {self.chunk_size_bytes}: give at most "
                f"{CHUNK_SIZE_BYTES_MAX}"
            )
        _require_at_least("kv_mib", self.kv_mib, 1)
        _require_at_least("page_tokens", self.page_tokens, 1)
        _require_at_least("max_sequences", self.max_sequences, 1)
        _require_at_least("step_rows", self.step_rows, self.max_sequences)
        _require_at_least("max_context", self.max_context, 1)
        _require_one_of("compute_dtype", self.compute_dtype, COMPUTE_DTYPES)
        _require_one_of("moves_kv", self.moves_kv, MOVES_KV)
        _require_one_of("plan_kind", self.plan_kind, SERVED_PLAN_KINDS)
        allowed = (AUTOSCALE_OFF, *SCALING_POLICIES)
        _require_one_of("autoscale", self.autoscale, allowed)
        if self.autoscale != AUTOSCALE_OFF and self.max_workers is None:
            raise ConfigError(
                f"autoscale is {self.autoscale} and max_workers is not given: say how "
                "many workers there may be at most"
            )
        if self.max_workers is not None:
            ScalingBounds(self.min_workers, self.max_workers)  # It checks them.

    @property
    def scaling(self) -> ScalingPolicy | None:
        """How the load decides; None: it does not."""
        return SCALING_POLICIES.get(self.autoscale)

    @property
    def scaling_bounds(self) -> ScalingBounds:
        """Between what."""
        num_max = self.max_workers or max(self.min_workers, 1)
        return ScalingBounds(self.min_workers, num_max)


@dataclasses.dataclass(frozen=True)
class WorkerConfig:
    """Who a worker is, whom it serves, and what it pretends its hardware to be.

    Attributes:
      worker: its name, unique for the life of the manager.
      manager_address: HOST:PORT of the manager; it may not be there yet.
      cluster_token: the secret that every process of the cluster shows.
      data_address: HOST:PORT where blocks and activations arrive.
      transport: what carries them: `tcp`, `rdma`, or `auto`: RDMA where it can be used.
      rdma_devices: names of the RDMA devices to use, with commas between; none: the
        one with the address of HOST, or the nearest of the fastest.
      rdma_gid_index: which address of their ports; None: RoCE v2 of IPv4, if any.
      rdma_retry_s: how long a peer that does not answer by RDMA is tried again.
      rdma_pull: blocks are read by those who want them, not written by those who have
        them.
      serve_address: HOST:PORT where gateways attach when it is the head of a replica.
      link_mbit_s: rate of its emulated link, each direction; None: as fast as it goes.
      nic_mbit_s: rate of its host's real link, each direction, if it should count where
        blocks are sent: a slow one is sent them last; None: not known.
      host: name of its machine, the same for workers that share a link; none: alone.
      leaf: name of the switch that its machine is plugged into.
      metrics_port: where Prometheus finds its numbers, at the host of `serve_address`;
        0 takes a free one, told by the log; None: nowhere.
      device_memory: where it keeps blocks, one of `DEVICE_MEMORY_KINDS`: on the GPU if
        JAX uses one (`auto`), in host memory, or on an emulated device.
      host_tier_dir: a directory in memory where the workers of a host keep copies of
        models, which outlive them.
      host_tier_mib: what these may take together, MiB; 0: none are kept.
      emulate_layer_us: a stage takes at least this long per layer, by waiting.
      cache_dir: where compiled executables are kept.
      ships_executables: send compiled executables to others, and take theirs.
      can_load_from_disk: whether the manager may ask it to read the block store.
    """

    worker: str
    manager_address: str
    cluster_token: str
    data_address: str = "127.0.0.1:0"
    transport: str = AUTO
    rdma_devices: str = ""
    rdma_gid_index: int | None = None
    rdma_retry_s: float = RETRY_S
    rdma_pull: bool = False
    serve_address: str = "127.0.0.1:0"
    link_mbit_s: float | None = None
    nic_mbit_s: float | None = None
    host: str = ""
    leaf: str = ""
    metrics_port: int | None = None
    device_memory: str = AUTO
    host_tier_dir: str = HOST_TIER_DIR
    host_tier_mib: int = 0
    emulate_layer_us: int = 0
    cache_dir: str = CACHE_DIR
    ships_executables: bool = True
    can_load_from_disk: bool = True

    def __post_init__(self) -> None:
        if not self.worker:
            raise ConfigError("--worker is empty: name the worker, w0 say")
        if not self.manager_address:
            raise ConfigError("--manager is empty: give HOST:PORT of the manager")
        for name in ("link_mbit_s", "nic_mbit_s"):
            rate = getattr(self, name)
            if rate is not None and rate <= 0:
                raise ConfigError(f"{name} is {rate}: give a rate over 0, or none")
        _ = self.host_tier
        _require_one_of("device_memory", self.device_memory, DEVICE_MEMORY_KINDS)
        _require_at_least("emulate_layer_us", self.emulate_layer_us, 0)
        for name in ("data_address", "serve_address"):
            address = getattr(self, name)
            if address.rpartition("://")[-1].startswith(("0.0.0.0:", "[::]:")):
                raise ConfigError(
                    f"{name} is {address}: others connect to it; give the "
                    f"address of this machine that they reach"
                )
        demanded_scheme(self.data_address, self.transport)
        assert self.rdma_options  # It checks them.

    @property
    def host_tier(self) -> HostTierConfig:
        """Copies of models in host memory."""
        return HostTierConfig(self.host_tier_dir, self.host_tier_mib)

    @property
    def rdma_options(self) -> RdmaOptions:
        """What the operator says about RDMA."""
        return RdmaOptions(
            devices=parse_devices(self.rdma_devices),
            gid_index=self.rdma_gid_index,
            retry_s=self.rdma_retry_s,
            pulls=self.rdma_pull,
        )


def _require_at_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise ConfigError(f"{name} is {value}: give at least {least}")


def _require_one_of(name: str, value: str, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}: give one of {', '.join(allowed)}")
