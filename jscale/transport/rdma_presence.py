"""Whether this process can use RDMA, and if not, what is missing and what to do."""

import importlib
import importlib.machinery
import importlib.util
import os
import re
import resource
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path

from jscale.core.units import MIB, format_size
from jscale.transport.rdma_devices import SYSFS, has_ports

PACKAGES = "python3-pyverbs ibverbs-providers rdma-core"
LOCKED_BYTES_LEAST = 64 * MIB
"""Less than this is locked by no worker; systems allow 64 KiB or 8 MiB by default."""

_DEV = Path("/dev")
_PROC = Path("/proc")
_UNLIMITED = resource.RLIM_INFINITY
_CAP_IPC_LOCK = 14  # linux/capability.h
_SYSTEM_FOLDERS = (
    Path("/usr/lib/python3/dist-packages"),
    *(
        Path(f"/usr/lib{bits}/python3.{minor}/site-packages")
        for bits in ("64", "")
        for minor in range(11, 16)
    ),
)


def load_pyverbs() -> object:
    """The module of devices; `import pyverbs` alone works without the library.

    Raises:
      ImportError: it is missing, or of another version than its library.
    """
    return importlib.import_module("pyverbs.device")


def why_not_rdma(
    *,
    sysfs: Path = SYSFS,
    dev: Path = _DEV,
    proc: Path = _PROC,
    load: Callable[[], object] = load_pyverbs,
    needed_bytes: int = LOCKED_BYTES_LEAST,
) -> str | None:
    """What is missing, and what to install or set, in one line; None: nothing.

    Args:
      sysfs: where sysfs is mounted.
      dev: where devices are.
      proc: where procfs is mounted.
      load: imports pyverbs.
      needed_bytes: memory that is to be registered, at least.
    """
    return (
        why_no_device(sysfs)
        or why_no_access(dev)
        or why_no_pyverbs(load)
        or why_not_locked(needed_bytes, locked_limits(), can_lock_all(proc))
    )


def why_no_device(sysfs: Path = SYSFS) -> str | None:
    """What to do where the kernel lists no device; None: it lists some."""
    if has_ports(sysfs):
        return None
    return (
        "the kernel lists no RDMA device; where there is a NIC for it, load its driver "
        "(modprobe mlx5_ib, say)"
    )


def why_no_access(dev: Path = _DEV) -> str | None:
    """What to do where the devices cannot be opened; None: one can be, at least."""
    nodes = sorted((dev / "infiniband").glob("uverbs*"))
    if not nodes:
        return (
            f"{dev}/infiniband has no uverbs device: modprobe ib_uverbs, and start "
            "containers with --device=/dev/infiniband"
        )
    if any(os.access(node, os.R_OK | os.W_OK) for node in nodes):
        return None
    return (
        f"no permission to open {nodes[0]}: install rdma-core, whose udev rule allows "
        f"it, or join its group (ls -l {nodes[0]})"
    )


def why_no_pyverbs(
    load: Callable[[], object] = load_pyverbs,
    folders: Iterable[Path] = _SYSTEM_FOLDERS,
) -> str | None:
    """What to do where pyverbs cannot be imported; None: it can be.

    Args:
      load: imports it.
      folders: where systems install it for their own Python.
    """
    try:
        load()
    except ModuleNotFoundError as error:
        top = (error.name or "").partition(".")[0]
        if top == "pyverbs":
            return _where_is_pyverbs(folders)
        return f"pyverbs cannot be imported: {error}; apt install {PACKAGES}"
    except ImportError as error:
        return f"pyverbs cannot be imported: {error}; apt install {PACKAGES}"
    return None


def why_not_locked(
    needed_bytes: int, limits: tuple[int, int], can_lock_all: bool
) -> str | None:
    """What to do where too little memory may be locked; None: enough may be. Pure.

    The soft limit does not matter: `raise_locked_limit` lifts it to the hard one.

    Args:
      needed_bytes: how much is to be registered.
      limits: soft and hard `RLIMIT_MEMLOCK`, bytes.
      can_lock_all: the process may ignore them.
    """
    hard = limits[1]
    if can_lock_all or hard == _UNLIMITED or hard >= needed_bytes:
        return None
    return (
        f"only {format_size(hard)} of memory may be locked, and at least "
        f"{format_size(needed_bytes)} are needed: raise `ulimit -l` (memlock in "
        "/etc/security/limits.conf, LimitMEMLOCK= in a systemd unit, --ulimit "
        "memlock=-1 for a container)"
    )


def locked_limits() -> tuple[int, int]:
    """Soft and hard limit of locked memory, bytes; -1: none."""
    return resource.getrlimit(resource.RLIMIT_MEMLOCK)


def raise_locked_limit() -> None:
    """Allows this process as much locked memory as it may allow itself."""
    _, hard = locked_limits()
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))


def can_lock_all(proc: Path = _PROC) -> bool:
    """Whether the limit is ignored for this process (CAP_IPC_LOCK, as root has)."""
    try:
        status = (proc / "self/status").read_text()
    except OSError:
        return False
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> _CAP_IPC_LOCK & 1)


def _where_is_pyverbs(folders: Iterable[Path]) -> str:
    """Why it was not found: not installed, not visible here, or built for another."""
    folder = _package_folder(folders)
    if folder is None:
        return f"pyverbs is not installed: apt install {PACKAGES}"
    if not any(
        (folder / f"device{suffix}").exists()
        for suffix in importlib.machinery.EXTENSION_SUFFIXES
    ):
        built = re.findall(
            r"device\.cpython-(\d)(\d+)",
            " ".join(path.name for path in sorted(folder.glob("device*.so"))),
        )
        versions = " and ".join(f"{major}.{minor}" for major, minor in built)
        return (
            f"{folder} is built for CPython {versions or 'no version'}, and this is "
            f"{sys.version_info.major}.{sys.version_info.minor}: run jscale on the "
            "former, or build rdma-core's pyverbs for the latter"
        )
    return (
        f"pyverbs is in {folder}, which this environment does not see: "
        f"ln -s {folder} {sysconfig.get_paths()['purelib']}/"
    )


def _package_folder(folders: Iterable[Path]) -> Path | None:
    """The pyverbs that this Python finds, or else one that the system has."""
    spec = importlib.util.find_spec("pyverbs")
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    candidates = (folder / "pyverbs" for folder in folders)
    return next((folder for folder in candidates if folder.is_dir()), None)
