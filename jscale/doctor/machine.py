"""Processors and memory, as far as they matter to a worker."""

import contextlib
import mmap
import os
import re
import tempfile
import time
from pathlib import Path

from jscale.core.units import KIB, MIB, format_size
from jscale.doctor.findings import Finding, Section, Verdict, is_good
from jscale.doctor.kernel_files import KernelFiles, number, read
from jscale.transport.checksum import crc32c
from jscale.transport.rdma_presence import (
    LOCKED_BYTES_LEAST,
    can_lock_all,
    locked_limits,
    why_not_locked,
)

CPU_FEATURES = {
    "avx2": "",
    "avx512f": "",
    "avx512_bf16": "bfloat16",
    "amx_bf16": "bfloat16 in tiles",
    "sse4_2": "CRC32C",
    "crc32": "CRC32C",
    "bf16": "bfloat16",
    "sve": "",
}
"""Of x86 and ARM; and what they are good for here."""

SLOW_CHECKSUM_BYTES_PER_S = 5e9
"""A checksum slower than this is what a 40 Gbit/s link waits for."""

_ALIGNMENT_BYTES = 4096


def processors(files: KernelFiles) -> Section:
    """How many, what they can do, and how fast they compute checksums."""
    text = read(files.proc / "cpuinfo")
    found = re.search(r"^(?:flags|Features)\s*:(.*)", text, re.MULTILINE)
    known = found[1].split() if found else []
    features = [name for name in CPU_FEATURES if name in known]
    model = re.search(r"^model name\s*:\s*(.*)", text, re.MULTILINE)
    num_cores = len(os.sched_getaffinity(0))
    return Section(
        "processors",
        (
            Finding(
                "cores",
                f"{num_cores} of {model[1] if model else 'an unknown kind'}",
                facts={"num_cores": num_cores},
            ),
            Finding(
                "features",
                ", ".join(map(_named_feature, features)) or "none that matter",
                facts={"features": features},
            ),
            _checksum(),
        ),
    )


def memory(files: KernelFiles) -> Section:
    """How much, how much of it may be locked, and what huge pages there are."""
    meminfo = dict(re.findall(r"^(\w+):\s+(\d+)", read(files.proc / "meminfo"), re.M))
    total, free = (
        int(meminfo.get(name, 0)) * KIB for name in ("MemTotal", "MemAvailable")
    )
    return Section(
        "memory",
        (
            Finding(
                "memory",
                f"{format_size(total)}, {format_size(free)} of it available",
                facts={"total_bytes": total, "available_bytes": free},
            ),
            _locked(files),
            _huge_pages(files),
            _shared_memory(files),
        ),
    )


def storage(cache_dir: str, files: KernelFiles) -> Section:
    """Whether files near the cache are read without passing the page cache."""
    folder = Path(os.path.expanduser(cache_dir))  # Whose home is not known, stays.
    while not os.path.isdir(folder):  # Nor one that we may not look into.
        folder = folder.parent
    kind = _file_system(folder, read(files.proc / "self/mounts"))
    refusal = why_not_direct(folder)
    is_refused = refusal.startswith("no ")
    return Section(
        "storage",
        (
            Finding(
                "O_DIRECT",
                f"{folder} ({kind}): {refusal or 'yes'}",
                Verdict.PLAIN if refusal and not is_refused else is_good(not refusal),
                "blocks are read through the page cache: keep models on ext4 or XFS "
                "on a local disk if loading is too slow"
                if is_refused
                else "",
                facts={
                    "folder": str(folder),
                    "file_system": kind,
                    "is_direct": not refusal,
                },
            ),
        ),
    )


def why_not_direct(folder: Path) -> str:
    """Why a file there cannot be read by O_DIRECT; empty: it can."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".jscale-doctor-") as file:
            file.write(bytes(_ALIGNMENT_BYTES))
            file.flush()
            os.fsync(file.fileno())
            return _why_not_read(file.name)
    except OSError as error:
        return f"cannot be tried: {error.strerror}"


def _why_not_read(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        return f"no ({error.strerror})"
    try:
        with mmap.mmap(-1, _ALIGNMENT_BYTES) as page:
            os.preadv(descriptor, [page], 0)
    except OSError as error:
        return f"no ({error.strerror})"
    finally:
        os.close(descriptor)
    return ""


def _checksum() -> Finding:
    data = bytearray(16 * MIB)
    crc32c(data)  # Its pages are there from now on.
    began_ns = time.perf_counter_ns()
    crc32c(data)
    bytes_per_s = len(data) / (time.perf_counter_ns() - began_ns) * 1e9
    is_fast = bytes_per_s >= SLOW_CHECKSUM_BYTES_PER_S
    return Finding(
        "CRC32C",
        f"{bytes_per_s / 1e9:.1f} GB/s on one core",
        is_good(is_fast),
        "" if is_fast else "every chunk is checked on both sides, which costs that",
        facts={"bytes_per_s": round(bytes_per_s)},
    )


def _locked(files: KernelFiles) -> Finding:
    limits, is_free = locked_limits(), can_lock_all(files.proc)
    advice = why_not_locked(LOCKED_BYTES_LEAST, limits, is_free) or ""
    soft, hard = (format_size(limit) if limit >= 0 else "unlimited" for limit in limits)
    text = f"{soft} soft, {hard} hard (ulimit -l)"
    if is_free:
        text += "; not for this process, which has CAP_IPC_LOCK"
    facts = {"soft": limits[0], "hard": limits[1], "can_lock_all": is_free}
    return Finding("locked memory", text, is_good(not advice), advice, facts=facts)


def _huge_pages(files: KernelFiles) -> Finding:
    kinds, facts = [], {}
    for folder in sorted((files.sysfs / "kernel/mm/hugepages").glob("hugepages-*kB")):
        size_kib = int(folder.name.removeprefix("hugepages-").removesuffix("kB"))
        total, free = number(folder / "nr_hugepages"), number(folder / "free_hugepages")
        kinds.append(f"{format_size(size_kib * KIB)}: {free} free of {total}")
        facts[f"{size_kib}_kib"] = {"total": total, "free": free}
    mode = read(files.sysfs / "kernel/mm/transparent_hugepage/enabled")
    chosen = re.search(r"\[(\w+)\]", mode)
    kinds.append(f"transparent: {chosen[1] if chosen else 'not offered'}")
    transparent = chosen[1] if chosen else ""
    is_off = transparent == "never"
    return Finding(
        "huge pages",
        ", ".join(kinds),
        Verdict.LACKING if is_off else Verdict.PLAIN,
        "models are loaded into small pages, which takes longer: echo madvise > "
        f"{files.sysfs}/kernel/mm/transparent_hugepage/enabled"
        if is_off
        else "",
        facts=facts | {"transparent": transparent},
    )


def _shared_memory(files: KernelFiles) -> Finding:
    with contextlib.suppress(OSError):
        found = os.statvfs(files.dev / "shm")
        total, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
        return Finding(
            "shared memory",
            f"{format_size(total)} in {files.dev}/shm, {format_size(free)} of it free",
            facts={"total_bytes": total, "free_bytes": free},
        )
    return Finding("shared memory", f"no {files.dev}/shm", Verdict.LACKING)


def _file_system(folder: Path, mounts: str) -> str:
    """The kind of the file system that the folder is in."""
    points = [line.split()[1:3] for line in mounts.splitlines() if line.count(" ") > 2]
    inside = [
        (len(point), kind)
        for point, kind in points
        if folder.resolve().is_relative_to(point)
    ]
    return max(inside, default=(0, "unknown"))[1]


def _named_feature(name: str) -> str:
    use = CPU_FEATURES[name]
    return f"{name} ({use})" if use else name
