"""RDMA devices, what they need, and whether they reach accelerators."""

import dataclasses
import platform
import re
from collections.abc import Callable, Iterable, Sequence

from jscale.doctor.accelerators import Accelerators
from jscale.doctor.findings import Finding, Section, Verdict, is_good
from jscale.doctor.kernel_files import KernelFiles, read
from jscale.transport.rdma_devices import ACTIVE, RdmaPort
from jscale.transport.rdma_presence import (
    load_pyverbs,
    why_no_access,
    why_no_device,
    why_no_pyverbs,
)

GIDS_MAX = 8
"""Addresses of a port that are shown; with many VLANs there are hundreds."""

DMA_BUF_KERNEL = (5, 12)
"""The first Linux whose verbs register DMA-BUF memory."""


def devices(
    ports: Sequence[RdmaPort],
    files: KernelFiles,
    load: Callable[[], object] = load_pyverbs,
) -> Section:
    """Every port with its addresses, and whether this process may use them."""
    findings = [_port(port) for port in ports]
    advice = why_no_pyverbs(load)
    pyverbs = Finding(
        "pyverbs",
        "cannot be imported" if advice else "can be imported",
        is_good(not advice),
        advice or "",
    )
    if not ports:
        none = Finding("devices", "none", advice=why_no_device(files.sysfs) or "")
        plain = dataclasses.replace(pyverbs, verdict=Verdict.PLAIN, advice="")
        return Section("RDMA", (none, plain))
    advice = why_no_access(files.dev)
    may = "may not be opened" if advice else "may be opened"
    findings.append(Finding("devices", may, is_good(not advice), advice or ""))
    return Section("RDMA", (*findings, pyverbs))


def gpu_direct(found: Accelerators, files: KernelFiles) -> Section:
    """Whether a NIC can read and write an accelerator's memory by itself."""
    if found.platform != "gpu":
        text = "not needed: blocks lie in host memory, which every NIC reaches"
        return Section("GPUDirect", (Finding("memory", text),))
    module = peer_memory_module(files)
    kernel = platform.release()
    needed = ".".join(map(str, DMA_BUF_KERNEL))
    return Section(
        "GPUDirect",
        (
            Finding(
                "DMA-BUF",
                f"{_said(found.dma_buf)} by CUDA"
                + (f" ({found.dma_buf_error})" if found.dma_buf_error else "")
                + f"; by Linux from {needed} on, this is {kernel}",
                is_good(can_dma_buf(found, kernel)),
                ""
                if can_dma_buf(found, kernel)
                else "use NVIDIA's open kernel modules, and pip install cuda-bindings",
                facts={"cuda": found.dma_buf, "kernel": kernel},
            ),
            Finding(
                "peer memory",
                f"{module or 'nvidia_peermem'} is {'' if module else 'not '}loaded",
                Verdict.GOOD if module else Verdict.PLAIN,
                facts={"module": module},
            ),
        ),
    )


def can_dma_buf(found: Accelerators, kernel: str) -> bool:
    """Whether driver and kernel (`5.12.0-amd64`) both pass memory as DMA-BUF."""
    numbers = re.match(r"(\d+)\.(\d+)", kernel)
    is_new = (
        numbers is not None and (int(numbers[1]), int(numbers[2])) >= DMA_BUF_KERNEL
    )
    return is_new and bool(found.dma_buf)


def peer_memory_module(files: KernelFiles) -> str:
    """The loaded module by which NICs reach NVIDIA's memory; empty: none is."""
    modules = read(files.proc / "modules")
    found = re.search(r"^(nvidia_peermem|nv_peer_mem) ", modules, re.MULTILINE)
    return found[1] if found else ""


def _port(port: RdmaPort) -> Finding:
    numa = "" if port.numa_node is None else f", NUMA node {port.numa_node}"
    gids = _aligned(
        (f"GID {gid.index}", gid.host, gid.kind, gid.netdev)
        for gid in port.gids[:GIDS_MAX]
    )
    if len(port.gids) > GIDS_MAX:
        gids.append(f"and {len(port.gids) - GIDS_MAX} more")
    return Finding(
        port.name,
        f"{port.state}, {port.rate_gbit_s:g} Gbit/s, {port.link_layer}{numa}",
        is_good(port.state == ACTIVE),
        "" if port.state == ACTIVE else "check its cable and `ip link`",
        tuple(gids),
        {
            "state": port.state,
            "rate_gbit_s": port.rate_gbit_s,
            "link_layer": port.link_layer,
            "numa_node": port.numa_node,
            "lid": port.lid,
            "gids": [
                {
                    "index": gid.index,
                    "address": gid.address,
                    "kind": gid.kind,
                    "netdev": gid.netdev,
                }
                for gid in port.gids
            ],
        },
    )


def _aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """A line for each row, its words below those of the others."""
    columns = [[*column] for column in zip(*rows, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    return [
        "  ".join(map(str.ljust, row, widths)).rstrip()
        for row in zip(*columns, strict=True)
    ]


def _said(is_supported: bool | None) -> str:
    return {True: "supported", False: "not supported", None: "not known"}[is_supported]
