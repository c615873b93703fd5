"""Which transport a worker would use here, and how bytes would get to the model."""

import platform
from collections.abc import Callable, Mapping, Sequence

from jscale.core.errors import ConfigError
from jscale.doctor.accelerators import Accelerators
from jscale.doctor.findings import Finding, Section, Verdict
from jscale.doctor.kernel_files import KernelFiles
from jscale.doctor.rdma import can_dma_buf, peer_memory_module
from jscale.transport.choice import choose_transport
from jscale.transport.rdma_devices import RdmaPort
from jscale.transport.rdma_options import RdmaOptions

PATHS = {
    "host": "received where the model reads it",
    "dmabuf": "the NIC writes into the accelerator (DMA-BUF)",
    "peermem": "the NIC writes into the accelerator (nvidia_peermem)",
    "staged": "received in pinned host memory, then copied to the accelerator",
}
"""How bytes get to where they are computed with, as `ModelStatus` calls it."""


def transports(
    hosts: Mapping[str, str],
    transport: str,
    options: RdmaOptions,
    *,
    ports: Sequence[RdmaPort],
    missing: str | None,
    near_numa: int | None,
    path_of: Callable[[str], str],
) -> Section:
    """What `--transport` would choose for each address.

    Args:
      hosts: address and what it is called.
      transport: as the flag says.
      options: as the flags say.
      ports: the RDMA ports there are.
      missing: what is missing for RDMA, which sections before have told.
      near_numa: node of the memory that is to be reached.
      path_of: the key of `PATHS` for a scheme.
    """

    def finding(host: str, name: str) -> Finding:
        try:
            choice = choose_transport(
                f"{host}:0",
                transport,
                options,
                why_not=lambda: missing,
                ports=lambda: tuple(ports),
                near_numa=near_numa,
            )
        except ConfigError as error:
            return Finding(name, "none", Verdict.LACKING, str(error))
        path = path_of(choice.scheme)
        return Finding(
            name,
            f"{choice.scheme} {choice.reason if choice.ports else ''}".rstrip(),
            Verdict.GOOD if choice.ports else Verdict.PLAIN,
            "" if choice.ports or missing else choice.reason,
            (PATHS[path],),
            {
                "host": host,
                "scheme": choice.scheme,
                "reason": choice.reason,
                "ports": [port.name for port in choice.ports],
                "path": path,
            },
        )

    findings = [finding(host, name) for host, name in hosts.items()]
    return Section(f"transport={transport}", findings)


def data_path(scheme: str, found: Accelerators, files: KernelFiles) -> str:
    """How bytes get to where they are computed with, a key of `PATHS`."""
    if found.platform != "gpu":
        return "host"
    if scheme == "rdma" and can_dma_buf(found, platform.release()):
        return "dmabuf"
    if scheme == "rdma" and peer_memory_module(files):
        return "peermem"
    return "staged"
