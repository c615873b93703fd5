"""Where workers keep the blocks, for the commands that start workers."""

from absl import flags

from jscale.store.device_memory import DEVICE_MEMORY_KINDS
from jscale.store.host_tier import HOST_TIER_DIR


def define() -> None:
    """One flag for each field of the configs that is about it."""
    flags.DEFINE_enum(
        "device_memory",
        "auto",
        DEVICE_MEMORY_KINDS,
        "Where blocks are kept: on the GPU if JAX uses one, in host memory, or on an "
        "emulated device, which is host memory reached by copies only.",
    )
    flags.DEFINE_integer(
        "host_tier_mib",
        0,
        "MiB of host memory for copies of models, which outlive workers and are shared "
        "by those of a host: the next loads from there. 0: none are kept.",
    )
    flags.DEFINE_string(
        "host_tier_dir", HOST_TIER_DIR, "Where they are: a directory in memory (tmpfs)."
    )
