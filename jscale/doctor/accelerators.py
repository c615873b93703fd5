"""Python, JAX, and the accelerators that they reach."""

import dataclasses
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from jscale.doctor.findings import Finding, Section, Verdict
from jscale.doctor.kernel_files import REAL, KernelFiles, read

PROBE_TIMEOUT_S = 60.0
"""A first `jax.devices()` takes 1 to 10 s; a broken driver, for ever."""

NVIDIA_TIMEOUT_S = 20.0
_NVIDIA_FIELDS = ("index", "name", "memory.total", "driver_version", "pci.bus_id")
Ask = Callable[[Sequence[str], float], str]
"""Runs a command for so many seconds at most, and returns what it printed."""


@dataclasses.dataclass(frozen=True)
class Accelerators:
    """What there is to compute on.

    Attributes:
      devices: platform, kind and id of each, as JAX lists them.
      jax_error: why JAX lists none.
      dma_buf: whether CUDA gives its memory out as DMA-BUF; None: not known.
      dma_buf_error: why that is not known.
    """

    devices: tuple[dict[str, Any], ...] = ()
    jax_error: str = ""
    dma_buf: bool | None = None
    dma_buf_error: str = ""

    @property
    def platform(self) -> str:
        """What JAX computes on: cpu, gpu, tpu; none if it cannot."""
        return self.devices[0]["platform"] if self.devices else ""


def run_command(command: Sequence[str], timeout_s: float) -> str:
    """What the command printed.

    Raises:
      OSError: it is not there, failed, or took longer.
    """
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=True
        ).stdout
    except subprocess.TimeoutExpired as error:
        raise OSError(f"no answer within {timeout_s:.0f} s") from error
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout or "").strip().splitlines()
        last = lines[-1] if lines else "it said nothing"
        raise OSError(f"exit status {error.returncode}: {last}") from error


def probe(ask: Ask = run_command) -> Accelerators:
    """What JAX sees, asked in another process, which may hang or crash."""
    command = [sys.executable, "-m", "jscale.doctor.accelerator_probe"]
    try:
        answer = json.loads(ask(command, PROBE_TIMEOUT_S).splitlines()[-1])
    except (OSError, ValueError, IndexError) as error:
        return Accelerators(jax_error=str(error), dma_buf_error=str(error))
    return Accelerators(**answer | {"devices": tuple(answer["devices"])})


def software() -> Section:
    """Versions, and where Python is."""
    names = ("jscale", "jax", "jaxlib", "flax", "awscrt")
    versions = {name: _version(name) for name in names}
    text = ", ".join(f"{name} {version}" for name, version in versions.items())
    return Section(
        "software",
        (
            Finding(
                "python",
                f"{platform.python_version()}, {sys.executable}",
                facts={"version": platform.python_version()},
            ),
            Finding("packages", text, facts={"versions": versions}),
            Finding("kernel", f"{platform.system()} {platform.release()}"),
        ),
    )


def accelerators(
    found: Accelerators, files: KernelFiles = REAL, ask: Ask = run_command
) -> Section:
    """What JAX computes on, and what NVIDIA's driver knows."""
    findings = [_jax(found)]
    fields = ",".join(_NVIDIA_FIELDS)
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        answer = ask(command, NVIDIA_TIMEOUT_S)
        rows = [row.split(", ") for row in answer.strip().splitlines()]
    except FileNotFoundError:
        return Section("accelerators", findings)
    except OSError as error:
        findings.append(Finding("nvidia-smi", str(error), Verdict.LACKING))
        return Section("accelerators", findings)
    findings += [_gpu(row, files) for row in rows]
    return Section("accelerators", findings)


def _gpu(row: Sequence[str], files: KernelFiles) -> Finding:
    if len(row) != len(_NVIDIA_FIELDS):  # No devices were found, say.
        return Finding("nvidia-smi", ", ".join(row), Verdict.LACKING)
    facts = dict(zip(_NVIDIA_FIELDS, row, strict=True))
    place = facts["pci.bus_id"].lower()[-len("0000:00:00.0") :]
    numa = read(files.sysfs / f"bus/pci/devices/{place}/numa_node")
    text = f"{facts['name']}, {facts['memory.total']}, driver {facts['driver_version']}"
    if numa and int(numa) >= 0:
        text += f", NUMA node {numa}"
    return Finding(f"gpu {facts['index']}", text, Verdict.GOOD, facts=facts)


def _jax(found: Accelerators) -> Finding:
    if not found.devices:
        return Finding(
            "jax",
            f"no devices: {found.jax_error}",
            Verdict.LACKING,
            "install jscale's dependencies again (pip install jscale, for CUDA "
            "jscale[cuda]), or see what the driver says",
            facts={"devices": []},
        )
    kinds = [device["kind"] for device in found.devices]
    text = ", ".join(f"{kinds.count(kind)} × {kind}" for kind in dict.fromkeys(kinds))
    verdict = Verdict.PLAIN if found.platform == "cpu" else Verdict.GOOD
    return Finding("jax", text, verdict, facts={"devices": list(found.devices)})


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
