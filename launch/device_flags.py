"""Where workers keep the blocks, for the commands that start workers."""

from absl import flags

from jscale.store.device_memory import DEVICE_MEMORY_KINDS


def define() -> None:
    """One flag for each field of the configs that is about it."""
    flags.DEFINE_enum(
        "device_memory",
        "auto",
        DEVICE_MEMORY_KINDS,
        "Where blocks are kept: on the GPU if JAX uses one, in host memory, or on an "
        "emulated device, which is host memory reached by copies only.",
    )
