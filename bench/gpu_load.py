"""How long until a model is in a GPU's memory and can be computed with.

In one run: pinned host memory to the arena and back, chunk by chunk, against one plain
pinned copy of the same size; files in memory (the host tier) and on disk to the arena,
the latter against plain large reads past the page cache; and the same model by
safetensors with `jax.device_put` and by Orbax, to *ready*: every array on the device.
Ours counts the digest of every block; the others check nothing. Files on disk are
dropped from the page cache before each read. All take turns, after a round that is not
counted; under ten minutes with the defaults.

    python bench/gpu_load.py                      # one GPU, 8 GiB of weights
    python bench/gpu_load.py --cpu --size_mib=64  # an emulated device

Writes JSON named after the accelerator beside this file, unless `--json` says where.
"""

import argparse
import collections
import concurrent.futures
import json
import mmap
import os
import pathlib
import platform
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from gpu_load_files import MIB, ModelFiles, forget

from jscale.core.errors import IntegrityError
from jscale.store.accelerator import leave_room
from jscale.store.arena import InUseError
from jscale.store.block_reader import BlockReader
from jscale.store.block_store import BlockStore
from jscale.store.cuda_memory import CudaMemory, load_driver
from jscale.store.device_arena import DeviceArena
from jscale.store.device_memory import DeviceMemory
from jscale.store.emulated_memory import EmulatedMemory
from jscale.store.regions import RegionState

HERE = pathlib.Path(__file__).parent
GB = 1e9
Seconds = dict[str, list[float]]

COMPARED = {
    "host_to_device_of_limit": ("host_to_device_limit", "host_to_device"),
    "device_to_host_of_limit": ("device_to_host_limit", "device_to_host"),
    "host_tier_to_landed_of_limit": ("host_to_device_limit", "host_tier_to_landed"),
    "disk_to_landed_of_limit": ("disk_limit", "disk_to_landed"),
    "disk_to_ready_of_limit": ("disk_limit", "disk_to_ready"),
    "faster_than_safetensors": ("safetensors_to_ready", "disk_to_ready"),
    "faster_than_orbax": ("orbax_to_ready", "disk_to_ready"),
}
"""Ratios of medians: what is compared with, over ours."""


def main() -> None:
    options = parse_options()
    if options.cpu:
        jax.config.update("jax_platforms", "cpu")
    with (
        tempfile.TemporaryDirectory(dir=options.directory) as folder,
        tempfile.TemporaryDirectory(dir=options.memory_directory) as in_memory,
    ):
        files = ModelFiles(
            pathlib.Path(folder),
            pathlib.Path(in_memory),
            options.size_mib * MIB,
            options.num_layers,
            options.num_blocks,
        )
        result = measure(files, options)
    name = re.sub(r"[^a-z0-9]+", "_", result["accelerator"].lower()).strip("_")
    path = pathlib.Path(options.json or HERE / f"gpu_load_{name}.json")
    path.write_text(json.dumps(result, indent=1) + "\n")
    print_result(result)
    print(f"written to {path}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="an emulated device")
    parser.add_argument("--size_mib", type=int, default=8192, help="of the weights")
    parser.add_argument("--num_layers", type=int, default=32)
    parser.add_argument("--num_blocks", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--directory", help="on the disk to read from")
    parser.add_argument(
        "--memory_directory",
        default="/dev/shm",
        help="of a file system in memory; without room the host tier is left out",
    )
    parser.add_argument("--json", help="where the result goes")
    return parser.parse_args()


def measure(files: ModelFiles, options: argparse.Namespace) -> dict[str, Any]:
    """Everything; what is written as JSON."""
    device: DeviceMemory = (
        EmulatedMemory() if options.cpu else CudaMemory(load_driver())
    )
    before = device.info()
    store = BlockStore(
        files.manifest, new_arena=lambda sizes: DeviceArena(device, sizes)
    )
    seconds = time_copies(device, store, options.repeats)
    # JAX has not started: plain copies had the memory that XLA takes from here on.
    if not options.cpu:
        leave_room(os.environ, device.info())
        assert jax.default_backend() == "gpu", "JAX does not use the GPU"
    loads = Loads(store, files)
    seconds |= loads.time(options.repeats)
    after = device.info()
    result = describe(device, files, options) | {
        "read": loads.read,
        "staging": str(store.arena.staging),
        "memory_bytes": {
            "total": before.total_bytes,
            "free_before": before.free_bytes,
            "arena": store.arena.size_bytes,
            "free_after": after.free_bytes,
            "xla_fraction": os.environ.get("XLA_CLIENT_MEM_FRACTION"),
        },
        "seconds": seconds,
        "ratios": {
            name: statistics.median(seconds[limit]) / statistics.median(seconds[ours])
            for name, (limit, ours) in COMPARED.items()
            if ours in seconds
        },
    }
    store.close(timeout_s=10)
    return result


def time_copies(device: DeviceMemory, store: BlockStore, repeats: int) -> Seconds:
    """Seconds of each way to move all blocks between pinned memory and the device."""
    chunks = range(store.chunks.chunks_of(1).start, store.chunks.num_chunks)
    sizes_bytes = [store.chunks.chunk(chunk).size_bytes for chunk in chunks]
    host = memoryview(mmap.mmap(-1, sum(sizes_bytes)))
    for start in range(0, len(host) - 8, mmap.PAGESIZE):
        host[start : start + 8] = start.to_bytes(8, "little")
    unpin = store.arena.pin(host)
    plain = device.allocate(len(host))

    def copy_in_all() -> None:
        done = 0
        for chunk, size_bytes in zip(chunks, sizes_bytes, strict=True):
            store.copy_in(chunk, host[done : done + size_bytes])
            done += size_bytes
        store.arena.synchronize()

    def read_all() -> None:
        for chunk in chunks:
            assert store.chunk_bytes(chunk).nbytes

    seconds = take_turns(
        {
            "host_to_device_limit": lambda: device.copy_in(plain, host).wait(),
            "host_to_device": copy_in_all,
            "device_to_host_limit": lambda: device.copy_out(host, plain).wait(),
            "device_to_host": read_all,
        },
        repeats,
        after_round=lambda: evict_all(store),
    )
    unpin()
    device.free(plain)
    return seconds


class Loads:
    """From files that are not cached to arrays that are ready, each way."""

    def __init__(self, store: BlockStore, files: ModelFiles) -> None:
        self.read: dict[str, str] = {}
        self._store, self._files = store, files
        self._moments: Seconds = collections.defaultdict(list)
        self._arrays: list[jax.Array] = []
        self._sums: set[int] = set()

    def time(self, repeats: int) -> Seconds:
        """Seconds of each."""
        jax.block_until_ready(jax.device_put(0.0))  # JAX has started.
        files = self._files
        ways: dict[str, Callable[[], None]] = {
            "disk_limit": files.read_plainly,
            "disk_to_ready": lambda: self._load_blocks("disk", files.store),
            "safetensors_to_ready": lambda: self._keep(files.load_safetensors()),
            "orbax_to_ready": lambda: self._keep(files.load_orbax()),
        }
        if (folder := files.in_memory) is not None:
            ways["host_tier_to_ready"] = lambda: self._load_blocks("host_tier", folder)
        seconds = take_turns(
            ways,
            repeats,
            before=lambda: forget(files.store.parent),
            after=self._check,
        )
        assert len(self._sums) == 1, "different models were loaded"
        return seconds | {way: times[1:] for way, times in self._moments.items()}

    def _load_blocks(self, origin: str, folder: pathlib.Path) -> None:
        """Ours: as a worker reads a model."""
        started_s = time.perf_counter()
        store, verifying = self._store, []
        views: dict[int, tuple[jax.Array, ...]] = {}
        first_view_s: list[float] = []
        digests = concurrent.futures.ThreadPoolExecutor(min(4, os.cpu_count() or 1))

        def publish(block: int) -> None:
            store.verify(block)
            views[block] = jax.block_until_ready(store.publish(block))
            first_view_s.append(time.perf_counter() - started_s)

        class Slots:
            host_slot, failed = store.host_slot, store.failed

            def landed(self, chunk: int) -> None:
                if region := store.landed(chunk):
                    verifying.append(digests.submit(publish, region - 1))

        entries = self._files.manifest.blocks
        paths = {index: [folder / entry.file] for index, entry in enumerate(entries)}
        report = BlockReader(store.chunks, paths, Slots()).run()
        self.read[origin] = f"{report.direct_bytes} bytes directly, {report.why_cached}"
        store.arena.synchronize()
        self._moments[f"{origin}_to_landed"].append(time.perf_counter() - started_s)
        for future in verifying:
            future.result()
        digests.shutdown()
        self._moments[f"{origin}_to_first_view"].append(min(first_view_s))
        self._keep([leaf for block in sorted(views) for leaf in views[block]])

    def _keep(self, arrays: list[jax.Array]) -> None:
        self._arrays = arrays

    def _check(self) -> None:
        """What was loaded is what the others loaded; it is let go."""
        if self._arrays:
            self._sums.add(sum(int(sum_of_bits(array)) for array in self._arrays))
        self._arrays = []
        evict_all(self._store)


@jax.jit
def sum_of_bits(array: jax.Array) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(array, jnp.uint16)
    return jnp.sum(bits.astype(jnp.uint32))


def take_turns(
    ways: dict[str, Callable[[], None]],
    repeats: int,
    *,
    before: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
    after_round: Callable[[], None] = lambda: None,
) -> Seconds:
    """Seconds of each way, round by round; the first round is not counted."""
    seconds: Seconds = {way: [] for way in ways}
    for turn in range(1 + repeats):
        for way, act in ways.items():
            before()
            started_s = time.perf_counter()
            act()
            took_s = time.perf_counter() - started_s
            after()
            if turn:
                seconds[way].append(took_s)
        after_round()
    return seconds


def evict_all(store: BlockStore) -> None:
    """Every chunk is missing again; JAX may hold what it read a moment longer."""
    for block in range(store.manifest.num_blocks):
        if store.state(block) is RegionState.VERIFYING:
            try:
                store.verify(block)
            except IntegrityError:
                continue  # As expected of bytes of no model: they are dropped.
        for attempt in range(50):
            try:
                store.evict(block)
                break
            except InUseError:
                if attempt == 49:
                    raise
                time.sleep(0.02)


def describe(
    device: DeviceMemory, files: ModelFiles, options: argparse.Namespace
) -> dict[str, Any]:
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, cwd=HERE, capture_output=True, text=True, check=False)
    text = pathlib.Path("/proc/cpuinfo").read_text()
    names = re.findall(r"model name\s*: (.*)", text)
    return {
        "accelerator": device.name,
        "processor": names[0] if names else platform.machine(),
        "num_cores": os.cpu_count(),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or "unknown",
        "weights_bytes": sum(files.manifest.block_sizes_bytes),
        "num_blocks": files.manifest.num_blocks,
        "repeats": options.repeats,
    }


def print_result(result: dict[str, Any]) -> None:
    print(f"{result['accelerator']}, {result['weights_bytes'] / GB:.2f} GB of weights")
    for way, times in result["seconds"].items():
        median_s = statistics.median(times)
        rate = result["weights_bytes"] / GB / median_s
        print(f"{way:26} {median_s:8.3f} s {rate:8.2f} GB/s")
    for name, ratio in result["ratios"].items():
        print(f"{name:26} {ratio:6.2f}")


if __name__ == "__main__":
    main()
