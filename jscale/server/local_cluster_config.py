"""What a local cluster is told before it starts."""

import dataclasses

from jscale.cluster.config import AUTO, AUTOSCALE_OFF, CACHE_DIR
from jscale.core.errors import ConfigError
from jscale.store.host_tier import HOST_TIER_DIR
from jscale.transport.rdma_options import RETRY_S


@dataclasses.dataclass(frozen=True)
class LocalClusterConfig:
    """A model, and the processes of one machine that serve it.

    Attributes:
      model: a directory: a block store, or a checkpoint that is converted.
      num_workers: worker processes at the start.
      autoscale: how the load decides how many there are from then on; or off.
      min_workers: fewer it never wants; 0 lets the model scale to zero.
      max_workers: more it never wants.
      address: HOST:PORT for clients; port 0 takes a free one.
      link_mbit_s: emulated rate of each worker's link; None: as fast as it goes.
      device_memory: where workers keep blocks: on the GPU if JAX uses one (`auto`), in
        `host` memory, or on an `emulated` device.
      host_tier_dir: a directory in memory where copies of models outlive workers.
      host_tier_mib: what these may take together, MiB; 0: none are kept.
      emulate_layer_us: each stage takes at least this long per layer, by waiting.
      plan_kind: how blocks travel between workers.
      executes_while_loading: workers serve with the blocks they have; without, once
        they hold the whole model.
      max_sequences: sequences that one replica decodes together.
      kv_mib: memory of a worker for KV pages at most, MiB.
      step_rows: tokens that one step computes at most, prompts included.
      max_context: tokens of a sequence; None: as the model allows, at most 4096.
      compute_dtype: element type of the arithmetic.
      moves_kv: when requests that are handed over take their KV along: `auto`, where
        that is sooner than computing it again, `always` or `never`.
      transport: what carries blocks between workers: `tcp`, `rdma`, or `auto`.
      rdma_devices: names of the RDMA devices to use, with commas between.
      rdma_gid_index: which address of their ports; None: RoCE v2 of IPv4, if any.
      rdma_retry_s: how long a worker that does not answer by RDMA is tried again.
      rdma_pull: blocks are read by those who want them.
      cache_dir: where converted models and compiled executables are kept.
      ships_executables: workers give compiled executables to new ones.
      start_timeout_s: how long the first worker may take to serve.
      drain_timeout_s: how long running requests may go on when the cluster ends.
      runtime_dir: where logs go, and stay; None: a temporary folder, removed at the
        end.
    """

    model: str
    num_workers: int = 1
    autoscale: str = AUTOSCALE_OFF
    min_workers: int = 1
    max_workers: int | None = None
    address: str = "127.0.0.1:0"
    link_mbit_s: float | None = None
    device_memory: str = AUTO
    host_tier_dir: str = HOST_TIER_DIR
    host_tier_mib: int = 0
    emulate_layer_us: int = 0
    plan_kind: str = AUTO
    executes_while_loading: bool = True
    max_sequences: int = 16
    step_rows: int = 128
    kv_mib: int = 2048
    max_context: int | None = None
    compute_dtype: str = "float32"
    moves_kv: str = "auto"
    transport: str = AUTO
    rdma_devices: str = ""
    rdma_gid_index: int | None = None
    rdma_retry_s: float = RETRY_S
    rdma_pull: bool = False
    cache_dir: str = CACHE_DIR
    ships_executables: bool = True
    start_timeout_s: float = 180.0
    drain_timeout_s: float = 5.0
    runtime_dir: str | None = None

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ConfigError(f"num_workers is {self.num_workers}: give at least 1")
