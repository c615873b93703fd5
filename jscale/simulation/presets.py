"""Testbeds and models by name, with where each number is from.

What is published is taken as it is; what is not is derived from it or from data sheets,
by the formulas of `model_costs`, and marked as an assumption.
"""

import dataclasses
import math
from collections.abc import Mapping

from jscale.core.errors import ConfigError
from jscale.core.units import NS_PER_MS, NS_PER_S, NS_PER_US
from jscale.simulation.model_shapes import MODELS, ModelShape
from jscale.simulation.settings import ClusterSpec, ModelCosts

MEMORY_SHARE = 0.9
"""Of an accelerator's memory that weights and KV may take (vLLM's default too)."""

SEQUENCES_MAX = 4
"""Sequences that a worker runs at a time: λScale's artifact sends its workers batches
of four prompts."""

STEP_TOKENS_MAX = 2048
"""Tokens of a step: vLLM's default where prompts come in chunks. With 512, a worker
that decodes besides would take prompts at half its rate."""


@dataclasses.dataclass(frozen=True)
class Testbed:
    """Machines as somebody measured with them.

    Args:
      cluster: hosts and links, with one accelerator a device.
      accelerator: what people call it.
      memory_bytes: of one accelerator.
      flops_per_s: dense bf16 peak of one.
      memory_bytes_per_s: of one.
      prefill_share: of the peak that prefill reaches.
      decode_share: of the memory's rate that decode reaches.
      decode_ns: published times of a decode step, by model.
      prefill_tokens_per_s: published rates, by model.
      num_accelerators: that a worker took there, by model; else as few as hold it.
      loads_in_turn: a worker of several accelerators loads one after the other.
      price_per_hour: of one accelerator, in dollars. An assumption, for comparison.
    """

    cluster: ClusterSpec
    accelerator: str
    memory_bytes: float
    flops_per_s: float
    memory_bytes_per_s: float
    prefill_share: float
    decode_share: float
    price_per_hour: float
    decode_ns: Mapping[str, int] = dataclasses.field(default_factory=dict)
    prefill_tokens_per_s: Mapping[str, float] = dataclasses.field(default_factory=dict)
    num_accelerators: Mapping[str, int] = dataclasses.field(default_factory=dict)
    loads_in_turn: bool = False

    def cluster_for(self, model: ModelCosts, num_workers: int) -> ClusterSpec:
        """The machines with devices that hold the model: as many hosts as it takes.

        Args:
          model: whose workers take `num_accelerators` each.
          num_workers: at most at a time.

        Raises:
          ConfigError: there are no workers.
        """
        if num_workers < 1:
            raise ConfigError(f"{num_workers} workers: give at least 1")
        taken = model.num_accelerators
        per_host = self.cluster.devices_per_host // taken
        num_buses = 1 if self.loads_in_turn else taken
        return dataclasses.replace(
            self.cluster,
            num_hosts=max(self.cluster.num_hosts, math.ceil(num_workers / per_host)),
            devices_per_host=per_host,
            host_to_device_bytes_per_s=num_buses
            * self.cluster.host_to_device_bytes_per_s,
        )


H800_400G = Testbed(
    ClusterSpec(
        name="h800-400g",
        num_hosts=12,
        devices_per_host=2,
        nic_bytes_per_s=400e9 / 8,
        local_bytes_per_s=200e9,
        host_to_device_bytes_per_s=54.1e9,
        disk_bytes_per_s=4.6e9,
        message_latency_ns=50 * NS_PER_US,
    ),
    accelerator="H800",
    memory_bytes=80e9,
    flops_per_s=989e12,
    memory_bytes_per_s=3.35e12,
    prefill_share=0.5,
    decode_share=0.6,
    price_per_hour=2.5,
    decode_ns={
        "llama-2-7b": 14 * NS_PER_MS,
        "llama-2-13b": 26 * NS_PER_MS,
        "llama-2-70b": 140 * NS_PER_MS,
    },
    loads_in_turn=True,
)
"""λScale's: 12 hosts of 2 H800, one NIC of 400 Gb/s each, executors warm beforehand.

Source: arXiv 2502.09922, evaluation. Host memory and SSD from its 70B model, 137.95 GB
in 2.55 s and in 30 s (its artifact's settings say 5 GB/s for the disk); 54 GB/s is what
one PCIe 5.0 bus gives, so its accelerators load in turn. Decode times are those with
which it emulates. NVIDIA's data sheets: 989 TFLOPS, 3.35 TB/s, and the H800's NVLink,
400 GB/s in both directions together. Assumed: shares, latency, price.
"""

H800_400G_COLD = dataclasses.replace(
    H800_400G,
    cluster=dataclasses.replace(
        H800_400G.cluster,
        name="h800-400g-cold",
        process_start_ns=500 * NS_PER_MS,
        executables_load_ns=26 * NS_PER_MS,
        compile_ns=20 * NS_PER_S,
    ),
)
"""The same, with what a new process takes.

Source: a CUDA context takes 500 ms (BlitzScale, arXiv 2412.17246), a serialised
executable 26 ms to load (measured, `jscale/README.md`). Assumed: 20 s to compile a
whole model.
"""

A800_100G = Testbed(
    ClusterSpec(
        name="a800-100g",
        num_hosts=4,
        devices_per_host=8,
        nic_bytes_per_s=100e9 / 8,
        nics_per_host=8,
        local_bytes_per_s=200e9,
        host_to_device_bytes_per_s=128e9 / 8,
        disk_bytes_per_s=8 * 10e9 / 8,
        process_start_ns=500 * NS_PER_MS,
        message_latency_ns=50 * NS_PER_US,
    ),
    accelerator="A800",
    memory_bytes=80e9,
    flops_per_s=312e12,
    memory_bytes_per_s=2.04e12,
    prefill_share=0.56,
    decode_share=0.6,
    price_per_hour=1.5,
    prefill_tokens_per_s={
        "llama-2-7b": 13_000,
        "llama-3-8b": 15_000,
        "mistral-24b": 12_000,
        "qwen-2.5-72b": 5_300,
    },
    num_accelerators={"mistral-24b": 2, "qwen-2.5-72b": 4},
)
"""BlitzScale's: 4 hosts of 8 A800 with a NIC of 100 Gb/s, PCIe of 128 Gb/s and an SSD
of 10 Gb/s for each.

Source: arXiv 2412.17246, evaluation; accelerators for each model and prefill rates from
the configurations of its artifact (github.com/blitz-serving/blitz-scale, `config/`).
NVIDIA's data sheets: 312 TFLOPS, 2.04 TB/s, NVLink 400 GB/s in both directions
together. The share of prefill is what the rate of Llama-2-7B comes to. The half second
until a new instance loads is fitted to the 2.0 s that Mistral-24B takes where every
host has it in memory; a CUDA context takes as long, it says. Not checked against the
paper's table: PCIe, SSD and the number of hosts. Assumed: share of decode, latency,
price.
"""

TESTBEDS = {
    testbed.cluster.name: testbed for testbed in (H800_400G, H800_400G_COLD, A800_100G)
}


def find_testbed(name: str) -> Testbed:
    """The testbed of that name.

    Raises:
      ConfigError: there is none.
    """
    if name not in TESTBEDS:
        raise ConfigError(f"preset {name!r}: choose one of {', '.join(TESTBEDS)}")
    return TESTBEDS[name]


def model_costs(
    name: str, testbed: Testbed, max_sequences: int = SEQUENCES_MAX
) -> ModelCosts:
    """What a model's steps take on a testbed's accelerators.

    A prompt's token takes 2 operations for each parameter, at `prefill_share` of the
    peak; a decode step reads all weights and the sequences' KV, at `decode_share` of
    the memory's rate; both are divided by the accelerators of a worker. What is
    published goes before.

    Args:
      name: of `MODELS`.
      testbed: where it runs.
      max_sequences: that a worker runs at a time.

    Raises:
      ConfigError: there is no such model, it is larger than a host's accelerators
        together, or no sequence may run.
    """
    if name not in MODELS:
        raise ConfigError(f"model {name!r}: choose one of {', '.join(MODELS)}")
    shape = MODELS[name]
    taken = _num_accelerators(shape, testbed)
    rate = taken * testbed.decode_share * testbed.memory_bytes_per_s
    operations_per_s = taken * testbed.prefill_share * testbed.flops_per_s
    prefill = operations_per_s / (2 * shape.num_parameters)
    free_bytes = MEMORY_SHARE * taken * testbed.memory_bytes - shape.size_bytes
    return ModelCosts(
        name=name,
        size_bytes=shape.size_bytes,
        num_layers=shape.num_layers,
        num_blocks=shape.num_blocks,
        prefill_tokens_per_s=testbed.prefill_tokens_per_s.get(name, prefill),
        decode_ns=testbed.decode_ns.get(
            name, round(shape.size_bytes / rate * NS_PER_S)
        ),
        decode_context_token_ns=shape.kv_bytes_per_token / rate * NS_PER_S,
        kv_bytes_per_token=shape.kv_bytes_per_token,
        activation_bytes_per_token=shape.activation_bytes_per_token,
        max_sequences=max_sequences,
        max_tokens=int(free_bytes / shape.kv_bytes_per_token),
        step_tokens_max=STEP_TOKENS_MAX,
        num_accelerators=taken,
    )


def _num_accelerators(shape: ModelShape, testbed: Testbed) -> int:
    """As many as were published, or the least power of two with a tenth left for KV."""
    taken = testbed.num_accelerators.get(shape.name, 1)
    per_host = testbed.cluster.devices_per_host
    while shape.size_bytes * 1.02 > MEMORY_SHARE * taken * testbed.memory_bytes:
        taken *= 2
    if taken > per_host:
        raise ConfigError(
            f"model {shape.name} of {shape.size_bytes / 1e9:.0f} GB: the {per_host} "
            f"{testbed.accelerator} of a host of {testbed.cluster.name} hold "
            f"{MEMORY_SHARE * per_host * testbed.memory_bytes / 1e9:.0f} GB: choose a "
            "smaller model or another preset"
        )
    return taken
