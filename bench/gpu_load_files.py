"""One model of random weights in three forms, and how others read theirs."""

import mmap
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
from safetensors.numpy import load_file, save_file

from jscale.checkpoint.random_model import config_of_size, write_random_model
from jscale.store.manifest import BlockEntry, Manifest

MIB = 1 << 20
NUMPY_DTYPES = {
    "bfloat16": ml_dtypes.bfloat16,
    "float16": np.float16,
    "float32": np.float32,
}
READ_BYTES = 16 * MIB
READS_AT_ONCE = 4


class ModelFiles:
    """The same tensors as a block store, as safetensors files, and by Orbax."""

    def __init__(
        self,
        folder: pathlib.Path,
        in_memory: pathlib.Path,
        size_bytes: int,
        num_layers: int,
        num_blocks: int,
    ) -> None:
        """Writes all three, of about that size each; the block store to memory too.

        In a process of its own: Orbax starts JAX, which would take a GPU's memory
        before there is an arena. `in_memory` is None where memory has not the room.
        """
        self.store = folder / "store"
        self.safetensors = folder / "safetensors"
        self.orbax = folder / "orbax"
        command = [sys.executable, __file__, str(folder)]
        command += [str(size_bytes), str(num_layers), str(num_blocks)]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        subprocess.run(command, env=environment, check=True)
        self.manifest = Manifest.load(self.store)
        self.in_memory: pathlib.Path | None = None
        if shutil.disk_usage(in_memory).free > 1.1 * self.manifest.size_bytes:
            shutil.copytree(self.store, in_memory, dirs_exist_ok=True)
            self.in_memory = in_memory

    def load_safetensors(self) -> list[jax.Array]:
        """Every array, ready on the device."""
        arrays = []
        for path in sorted(self.safetensors.iterdir()):
            arrays += [jax.device_put(value) for value in load_file(path).values()]
        return jax.block_until_ready(arrays)

    def load_orbax(self) -> list[jax.Array]:
        """Every array, ready on the device."""
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        wanted = {
            entry.file: {
                tensor.name: jax.ShapeDtypeStruct(
                    tensor.shape, NUMPY_DTYPES[tensor.dtype], sharding=sharding
                )
                for tensor in entry.layout.tensors
            }
            for entry in self.manifest.blocks
        }
        with ocp.StandardCheckpointer() as checkpointer:
            restored = checkpointer.restore(self.orbax, wanted)
        return jax.block_until_ready(jax.tree.leaves(restored))

    def read_plainly(self) -> None:
        """Every block file by large reads, several at once, into memory used again."""
        pieces = [
            (path, start)
            for path in sorted(self.store.glob("block-*.bin"))
            for start in range(0, path.stat().st_size, READ_BYTES)
        ]
        lock = threading.Lock()

        def work() -> None:
            buffer = mmap.mmap(-1, READ_BYTES)
            while True:
                with lock:
                    if not pieces:
                        return
                    path, start = pieces.pop(0)
                descriptor = _open_directly(path)
                os.preadv(descriptor, [buffer], start)
                os.close(descriptor)

        threads = [threading.Thread(target=work) for _ in range(READS_AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def write(
    folder: pathlib.Path, size_bytes: int, num_layers: int, num_blocks: int
) -> None:
    """The model in three forms, on disk."""
    config = config_of_size(size_bytes, num_layers=num_layers, dtype="bfloat16")
    store = folder / "store"
    manifest = write_random_model(
        store, config, dtype="bfloat16", num_blocks=num_blocks
    )
    (folder / "safetensors").mkdir()
    everything = {}
    for entry in manifest.blocks:
        tensors = _tensors(store, entry)
        save_file(tensors, folder / "safetensors" / f"{entry.file}.safetensors")
        everything[entry.file] = tensors
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "orbax", everything)


def forget(folder: pathlib.Path) -> None:
    """Drops what the page cache has of the files in a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _tensors(store: pathlib.Path, entry: BlockEntry) -> dict[str, np.ndarray]:
    """The tensors of a block as arrays over a mapping of its file."""
    data = np.memmap(store / entry.file, np.uint8, "r")
    return {
        tensor.name: data[tensor.offset_bytes : tensor.offset_bytes + tensor.size_bytes]
        .view(NUMPY_DTYPES[tensor.dtype])
        .reshape(tensor.shape)
        for tensor in entry.layout.tensors
    }


def _open_directly(path: pathlib.Path) -> int:
    """A descriptor past the page cache where the file system has that."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return os.open(path, os.O_RDONLY)


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:]))
