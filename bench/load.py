"""How long until a model from disk, or from host memory, can be computed with on a CPU.

In one run, in turn, after a round that is not counted: disk to the arena against plain
large reads past the page cache, of the same size and as many at once, into the same
memory; a memory file system to the arena against a plain copy; and to *ready*, where
every parameter is a JAX array and every block's digest was compared, against the same
model by `safetensors` with `jax.device_put` and by Orbax, which compare nothing. Disk
files are dropped from the page cache before each; memory is always written for the
first time, as in a worker that starts.

    python bench/load.py --json=out.json
    python bench/load.py --size_mib=1024 --directory=/on/a/fast/disk   # 3 GiB of files

For an accelerator's memory: `gpu_load.py`.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np
from gpu_load import evict_all, sum_of_bits, take_turns
from gpu_load_files import MIB, ModelFiles, forget

from jscale.core.units import KIB
from jscale.store.block_reader import PIECE_BYTES, READS_AT_ONCE, BlockReader
from jscale.store.block_store import BlockStore, region_of
from jscale.store.digest import digest_of
from jscale.store.host_tier import HOST_TIER_DIR

GB = 1e9
SECTOR_BYTES = 4 * KIB
RATIOS = {
    "disk to arena, of a plain read": ("disk_limit", "disk_to_arena"),
    "host to arena, of a plain copy": ("host_limit", "host_to_arena"),
    "disk to ready, times as fast as safetensors": ("safetensors", "disk_to_ready"),
    "disk to ready, times as fast as Orbax": ("orbax", "disk_to_ready"),
    "host to ready, times as fast as safetensors": ("safetensors", "host_to_ready"),
    "disk to arena, times as fast as safetensors": ("safetensors", "disk_to_arena"),
    "a plain read, times as fast as safetensors": ("safetensors", "disk_limit"),
    "digests, share of disk to ready": ("digests", "disk_to_ready"),
}
"""Seconds of the first over seconds of the second: of medians, and of the fastest,
which other programs on the machine disturb least."""


def main() -> None:
    options = parse_options()
    jax.config.update("jax_platforms", "cpu")
    jax.block_until_ready(jax.device_put(0.0))  # JAX has started.
    with (
        tempfile.TemporaryDirectory(dir=options.directory) as folder,
        tempfile.TemporaryDirectory(dir=options.memory_directory) as memory,
    ):
        files = ModelFiles(
            pathlib.Path(folder),
            pathlib.Path(memory),
            options.size_mib * MIB,
            options.num_layers,
            options.num_blocks,
        )
        assert files.in_memory is not None, f"too little room in {memory}"
        result = measure(files, options.repeats)
    print_result(result)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(result, indent=1) + "\n")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size_mib", type=int, default=320, help="of the weights")
    parser.add_argument("--num_layers", type=int, default=16)
    parser.add_argument("--num_blocks", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--directory", help="on the disk to read from")
    parser.add_argument(
        "--memory_directory",
        default=str(pathlib.Path(HOST_TIER_DIR).parent),
        help="of a memory file system",
    )
    parser.add_argument("--json", help="where the result goes")
    return parser.parse_args()


def measure(files: ModelFiles, repeats: int) -> dict[str, object]:
    """Seconds of every way; all load the same model."""
    store = BlockStore(files.manifest)
    loads = Loads(files, store)
    from_disk = {i: [files.store / e.file] for i, e in enumerate(files.manifest.blocks)}
    from_host = {
        i: [files.in_memory / e.file] for i, e in enumerate(files.manifest.blocks)
    }
    blocks = [path.read_bytes() for (path,) in from_host.values()]
    ways: dict[str, Callable[[], object]] = {
        "disk_limit": lambda: loads.read_plainly(from_disk),
        "disk_to_arena": lambda: loads.read(from_disk),
        "disk_to_ready": lambda: loads.make_ready(from_disk),
        "host_limit": lambda: loads.copy_plainly(from_host),
        "host_to_arena": lambda: loads.read(from_host),
        "host_to_ready": lambda: loads.make_ready(from_host),
        "digests": lambda: loads.hash_everything(blocks),
        "safetensors": lambda: loads.keep(files.load_safetensors()),
        "orbax": lambda: loads.keep(files.load_orbax()),
    }
    seconds = take_turns(
        ways, repeats, before=lambda: forget(files.store.parent), after=loads.check
    )
    assert len(loads.sums) == 1, "different models were loaded"
    result = {
        "weights_bytes": files.manifest.size_bytes,
        "num_blocks": files.manifest.num_blocks,
        "num_cores": os.cpu_count(),
        "jax": jax.__version__,
        "read": loads.report,
        "seconds": seconds,
        "ratios": {
            name: {
                "median": statistics.median(seconds[limit])
                / statistics.median(seconds[ours]),
                "fastest": min(seconds[limit]) / min(seconds[ours]),
            }
            for name, (limit, ours) in RATIOS.items()
        },
    }
    store.close(timeout_s=10)
    return result


class Loads:
    """What takes turns; the arena is empty, and its memory untouched, before each."""

    def __init__(self, files: ModelFiles, store: BlockStore) -> None:
        self.report = ""
        self.sums: set[int] = set()
        self._files, self._store = files, store
        self._arrays: list[jax.Array] = []
        self._pool = concurrent.futures.ThreadPoolExecutor(READS_AT_ONCE)

    def read(self, places: dict[int, list[pathlib.Path]]) -> None:
        """Ours, to the last chunk in its place."""
        self.report = str(BlockReader(self._store.chunks, places, self._store).run())

    def make_ready(self, places: dict[int, list[pathlib.Path]]) -> None:
        """Ours, as a worker does: a block is hashed while the next are read."""
        store, pool = self._store, self._pool
        ready = []

        def publish(block: int) -> list[jax.Array]:
            store.verify(block)
            return list(jax.block_until_ready(store.publish(block)))

        class Slots:
            host_slot, failed = store.host_slot, store.failed

            def landed(self, chunk: int) -> None:
                if region := store.landed(chunk):
                    ready.append((region, pool.submit(publish, region - 1)))

        self.report = str(BlockReader(store.chunks, places, Slots()).run())
        self.keep([leaf for _, future in sorted(ready) for leaf in future.result()])

    def read_plainly(self, places: dict[int, list[pathlib.Path]]) -> None:
        """The limit of the disk: the same reads, and nothing else."""

        def read(block: int, start: int, size_bytes: int) -> None:
            descriptor = os.open(places[block][0], os.O_RDONLY | os.O_DIRECT)
            into = self._memory(block)[start : start + size_bytes]
            whole = size_bytes // SECTOR_BYTES * SECTOR_BYTES
            if whole:
                os.preadv(descriptor, [into[:whole]], start)
            os.close(descriptor)

        self._in_pieces(read)

    def copy_plainly(self, places: dict[int, list[pathlib.Path]]) -> None:
        """The limit of host memory: the same pieces copied, and nothing else."""
        sources = {
            block: np.memmap(path, np.uint8, "r") for block, (path,) in places.items()
        }

        def copy(block: int, start: int, size_bytes: int) -> None:
            into = np.frombuffer(self._memory(block), np.uint8)
            end = start + size_bytes
            np.copyto(into[start:end], sources[block][start:end])

        self._in_pieces(copy)

    def hash_everything(self, blocks: list[bytes]) -> None:
        """What digests cost where nothing else is done."""
        list(self._pool.map(digest_of, blocks))

    def keep(self, arrays: list[jax.Array]) -> None:
        """What was loaded, until `check`."""
        self._arrays = arrays

    def check(self) -> None:
        """What was loaded is what the others loaded; all is let go."""
        if self._arrays:
            self.sums.add(sum(int(sum_of_bits(array)) for array in self._arrays))
        self._arrays = []
        evict_all(self._store)

    def _memory(self, block: int) -> memoryview:
        start = self._store.chunks.region_offset_bytes(region_of(block))
        size_bytes = self._files.manifest.block_sizes_bytes[block]
        return self._store.arena.memory(start, size_bytes)

    def _in_pieces(self, act: Callable[[int, int, int], None]) -> None:
        """Pieces of all blocks, as large and as many at once as ours."""
        pieces = [
            (block, start, min(PIECE_BYTES, size_bytes - start))
            for block, size_bytes in enumerate(self._files.manifest.block_sizes_bytes)
            for start in range(0, size_bytes, PIECE_BYTES)
        ]
        list(self._pool.map(lambda piece: act(*piece), pieces))


def print_result(result: dict) -> None:
    print(f"{result['weights_bytes'] / GB:.2f} GB in {result['num_blocks']} blocks")
    for way, times in result["seconds"].items():
        median_s = statistics.median(times)
        rate = result["weights_bytes"] / GB / median_s
        spread = f"{min(times):.3f} to {max(times):.3f}"
        print(f"{way:16} {median_s:7.3f} s ({spread}) {rate:6.2f} GB/s")
    for name, ratio in result["ratios"].items():
        print(f"{name:44} {ratio['median']:6.2f} (fastest {ratio['fastest']:.2f})")


if __name__ == "__main__":
    started_s = time.monotonic()
    main()
    print(f"took {time.monotonic() - started_s:.0f} s")
