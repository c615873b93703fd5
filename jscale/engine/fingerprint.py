"""What must be the same where an executable was compiled and where it runs."""

import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Mapping

import jax
import msgspec

from jscale.core.errors import JscaleError
from jscale.engine import program as program_module
from jscale.engine.program import ModelProgram

_CPU_INFO = pathlib.Path("/proc/cpuinfo")
_CPU_FEATURE_KEYS = ("flags", "Features")
_CODE_FOLDERS = ("models", "engine")


class ExecutableMismatchError(JscaleError):
    """Executables that were compiled for something else; compile them here instead."""


Fingerprint = Mapping[str, str]
"""Named facts, so that a mismatch can say which differs."""


def fingerprint_of(program: ModelProgram) -> Fingerprint:
    """The facts about this process and the model that its executables depend on."""
    device = jax.local_devices()[0]
    return {
        "platform": device.platform,
        "device kind": device.device_kind,
        # On GPUs it names the versions of CUDA that compile and run.
        "platform version": device.client.platform_version,
        "devices": str(jax.local_device_count()),
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        # Read by XLA itself, not a setting of ours: what it saw is what matters.
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "CPU features": _cpu_features() if device.platform == "cpu" else "",
        "code": _code_digest(),
        "model": f"{program.family.name} {_json(program.model.to_dict())}",
        "partition": _json([block.kind.name for block in program.partition.blocks]),
        "dtype": program.dtype,
        "engine": _json(msgspec.to_builtins(program.engine)),
    }


def fingerprint_digest(fingerprint: Fingerprint) -> str:
    """A short name for a fingerprint: equal facts, equal name."""
    return hashlib.sha256(_json(dict(fingerprint)).encode()).hexdigest()[:32]


def check_fingerprint(*, found: Fingerprint, wanted: Fingerprint) -> None:
    """Compares what executables were compiled for with what this process needs.

    Raises:
      ExecutableMismatchError: a fact differs; the message names it.
    """
    for name in sorted({*found, *wanted}):
        there, here = found.get(name, "(unknown)"), wanted.get(name, "(unknown)")
        if there != here:
            raise ExecutableMismatchError(
                f"executables: {name} is {_short(there)} there and {_short(here)} "
                "here; compiling them here"
            )


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."


@functools.cache
def _cpu_features() -> str:
    """The machine, and a digest of the instruction sets that its CPU names."""
    features: list[str] = []
    if _CPU_INFO.exists():
        for line in _CPU_INFO.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() in _CPU_FEATURE_KEYS:
                features = sorted(value.split())
                break
    digest = hashlib.sha256(" ".join(features).encode()).hexdigest()[:16]
    return f"{platform.machine()} {digest}"


@functools.cache
def _code_digest() -> str:
    """A digest of the sources that executables are traced from."""
    root = pathlib.Path(program_module.__file__).parent.parent
    digest = hashlib.sha256()
    for folder in _CODE_FOLDERS:
        for path in sorted((root / folder).glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]
