"""Looks at everything, in the order in which it is told."""

import dataclasses
import os
from collections.abc import Callable, Sequence

from jscale.core.errors import ConfigError
from jscale.doctor import accelerators, machine, rdma, transports
from jscale.doctor.findings import Section
from jscale.doctor.kernel_files import REAL, KernelFiles
from jscale.transport.interfaces import own_addresses
from jscale.transport.numa import numa_of_worker
from jscale.transport.rdma_devices import list_ports
from jscale.transport.rdma_options import RDMA_DEFAULTS, RdmaOptions
from jscale.transport.rdma_presence import load_pyverbs, why_not_rdma
from jscale.transport.schemes import AUTO, TRANSPORTS


@dataclasses.dataclass(frozen=True)
class DoctorConfig:
    """What a worker would be told, as far as the machine matters to it.

    Attributes:
      transport: what carries blocks; auto: what can be used.
      rdma: which RDMA devices, and how.
      host: the address that others would know it by; none: each that there is.
      cache_dir: where converted models would go.
    """

    transport: str = AUTO
    rdma: RdmaOptions = RDMA_DEFAULTS
    host: str = ""
    cache_dir: str = "~/.cache/jscale"

    def __post_init__(self) -> None:
        if self.transport not in TRANSPORTS:
            raise ConfigError(
                f"transport is {self.transport!r}: give one of {', '.join(TRANSPORTS)}"
            )


def examine(
    config: DoctorConfig,
    *,
    files: KernelFiles = REAL,
    ask: accelerators.Ask = accelerators.run_command,
    load: Callable[[], object] = load_pyverbs,
) -> Sequence[Section]:
    """What this machine offers, section by section.

    Args:
      config: what a worker would be told.
      files: where the kernel tells what there is.
      ask: runs other programs.
      load: imports pyverbs.
    """
    found = accelerators.probe(ask)
    ports = list_ports(files.sysfs)
    own = {address: f"{name} {address}" for name, address in own_addresses().items()}
    chosen = transports.transports(
        {config.host: config.host} if config.host else own,
        config.transport,
        config.rdma,
        ports=ports,
        missing=why_not_rdma(
            sysfs=files.sysfs, dev=files.dev, proc=files.proc, load=load
        ),
        near_numa=numa_of_worker(os.environ.get("CUDA_VISIBLE_DEVICES"), files.sysfs),
        path_of=lambda scheme: transports.data_path(scheme, found, files),
    )
    return (
        accelerators.software(),
        accelerators.accelerators(found, files, ask),
        machine.processors(files),
        machine.memory(files),
        machine.storage(config.cache_dir, files),
        rdma.devices(ports, files, load),
        rdma.gpu_direct(found, files),
        chosen,
    )
