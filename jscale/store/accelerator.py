"""Where blocks lie: which memory the arena is made of, chosen before JAX starts."""

import importlib.metadata
import os
from collections.abc import Callable, MutableMapping

import jax
from absl import logging

from jscale.core.errors import ConfigError
from jscale.core.units import GIB, format_size
from jscale.store.arena import Arena, ArenaSizes
from jscale.store.cuda_memory import CudaMemory, load_driver
from jscale.store.device_arena import DeviceArena
from jscale.store.device_memory import DeviceMemoryError, MemoryInfo
from jscale.store.emulated_memory import EmulatedMemory
from jscale.store.host_arena import HostArena

XLA_MARGIN_BYTES = 1 * GIB
"""Left to what takes a GPU's memory beside arena and pool: code that is loaded,
libraries' work areas, and a second context now and then."""

_FRACTION = "XLA_CLIENT_MEM_FRACTION"
_USERS_OWN = (_FRACTION, "XLA_PYTHON_CLIENT_MEM_FRACTION")


def new_arena(kind: str) -> Callable[[ArenaSizes], Arena]:
    """What makes the arena of a worker; to be called before JAX computes anything.

    Args:
      kind: one of `DEVICE_MEMORY_KINDS`; but for `auto`, JAX is to use the processor.
    """
    if kind == "auto":
        return _on_gpu if _may_use_gpu() else HostArena
    _use_the_processor()
    if kind == "emulated":
        return lambda sizes: DeviceArena(EmulatedMemory(), sizes)
    return HostArena


def leave_room(environment: MutableMapping[str, str], left: MemoryInfo) -> None:
    """Has XLA take what is left of a GPU for its pool, but for a margin.

    XLA reads the environment when JAX first computes, and would take three quarters of
    the whole GPU, wherever the arena is. What the user set is not touched.

    Args:
      environment: of this process.
      left: of the GPU, once the arena is allocated.

    Raises:
      ConfigError: nothing is left.
    """
    if any(name in environment for name in _USERS_OWN):
        return
    pool_bytes = left.free_bytes - XLA_MARGIN_BYTES
    # A ten-thousandth of the GPU at a time, rounded down.
    share = pool_bytes * 10_000 // left.total_bytes
    if share < 1:
        raise ConfigError(
            f"the arena leaves {format_size(left.free_bytes)} of the GPU's "
            f"{format_size(left.total_bytes)}, and XLA needs "
            f"{format_size(XLA_MARGIN_BYTES)} and more: serve a smaller model, or set "
            f"{_FRACTION}"
        )
    environment[_FRACTION] = f"{share / 10_000:.4f}"


def _may_use_gpu() -> bool:
    """Whether JAX has what it needs for an NVIDIA GPU and is not told otherwise."""
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    has_plugin = any(plugin.name.startswith("xla_cuda") for plugin in plugins)
    platforms: str | None = getattr(jax.config, "jax_platforms", None)
    is_wanted = not platforms or any(
        name in ("cuda", "gpu") for name in platforms.split(",")
    )
    return has_plugin and is_wanted


def _use_the_processor() -> None:
    """JAX computes where the arena is; no effect once it has begun."""
    jax.config.update("jax_platforms", "cpu")  # type: ignore[no-untyped-call]


def _on_gpu(sizes: ArenaSizes) -> Arena:
    """An arena on the GPU; in host memory where JAX turns out to use none."""
    try:
        device = CudaMemory(load_driver())
    except DeviceMemoryError as error:
        _use_the_processor()  # It could not compute with what is in host memory.
        logging.warning("arena in host memory: %s", error)
        return HostArena(sizes)
    arena = DeviceArena(device, sizes)
    leave_room(os.environ, device.info())
    if jax.default_backend() != "gpu":
        arena.close()
        logging.warning("arena in host memory: JAX uses %s", jax.default_backend())
        return HostArena(sizes)
    logging.info(
        "arena device=%r bytes=%d free_bytes=%d",
        device.name,
        sizes.blocks_bytes,
        device.info().free_bytes,
    )
    return arena
