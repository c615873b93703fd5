"""Which GPU of this machine each worker of a local cluster has to itself."""

from collections.abc import Collection, Mapping
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
_ORDER = "CUDA_DEVICE_ORDER"

NVIDIA_DRIVER = Path("/sys/bus/pci/drivers/nvidia")
"""Has an entry for each GPU that the driver serves."""

DEVICES = Path("/dev")
"""Has a file for each GPU that may be opened: in a container, for some of them."""


def gpus_here(
    environment: Mapping[str, str],
    driver: Path = NVIDIA_DRIVER,
    devices: Path = DEVICES,
) -> tuple[str, ...]:
    """Names of the GPUs that workers may use, as `CUDA_VISIBLE_DEVICES` takes them.

    Args:
      environment: of this process, which may name some of them.
      driver: where the system lists them.
      devices: where their files are, if they were made already.
    """
    visible = environment.get(VISIBLE)
    if visible is not None:
        return tuple(filter(None, (name.strip() for name in visible.split(","))))
    num_gpus = len(list(driver.glob("*:*:*")))
    num_files = len(list(devices.glob("nvidia[0-9]*")))
    return tuple(str(number) for number in range(min(num_gpus, num_files or num_gpus)))


def choose_gpu(gpus: Collection[str], taken: Collection[str]) -> str | None:
    """The first of those that fewest workers have; None: there is none.

    `choose_gpu(("0", "1"), ["0"])` is "1".
    """
    taken = list(taken)
    return min(gpus, key=taken.count, default=None)


def environment_for(gpu: str | None, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker that is to see that GPU alone; None: as it is."""
    made = dict(environment)
    if gpu is not None:
        made[VISIBLE] = gpu
        made.setdefault(_ORDER, "PCI_BUS_ID")  # As they are numbered here.
    return made
