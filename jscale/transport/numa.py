"""Which NICs are near, on machines where that differs."""

import os
from pathlib import Path

from jscale.transport.rdma_devices import SYSFS


def numa_of_worker(visible_gpus: str | None, sysfs: Path = SYSFS) -> int | None:
    """The node of the GPUs that a worker may use, or else that of its processors.

    Args:
      visible_gpus: what CUDA_VISIBLE_DEVICES says; None: nothing.
      sysfs: where sysfs is mounted.
    """
    node = numa_of_gpus(visible_gpus, sysfs)
    return numa_of_process(sysfs) if node is None else node


def numa_of_gpus(visible_gpus: str | None, sysfs: Path = SYSFS) -> int | None:
    """The one node that all of these NVIDIA GPUs are plugged into; None: none is.

    Args:
      visible_gpus: their numbers, in the order of the bus, with commas between; None:
        all there are. Other names of GPUs are not understood.
      sysfs: where sysfs is mounted.
    """
    gpus = sorted((sysfs / "bus/pci/drivers/nvidia").glob("*:*:*"))
    if visible_gpus is not None:
        chosen = [part.strip() for part in visible_gpus.split(",")]
        if not all(part.isdigit() and int(part) < len(gpus) for part in chosen):
            return None
        gpus = [gpus[int(part)] for part in chosen]
    try:
        nodes = {int((gpu / "numa_node").read_text()) for gpu in gpus}
    except (OSError, ValueError):  # A kernel that knows of no nodes.
        return None
    return nodes.pop() if len(nodes) == 1 and min(nodes) >= 0 else None


def numa_of_process(
    sysfs: Path = SYSFS, processors: frozenset[int] | None = None
) -> int | None:
    """The one node that has all processors of this process; None: several do.

    Args:
      sysfs: where sysfs is mounted.
      processors: those it may run on; None: as the system says.
    """
    own = os.sched_getaffinity(0) if processors is None else processors
    for node in (sysfs / "devices/system/node").glob("node[0-9]*"):
        if own <= _parsed((node / "cpulist").read_text()):
            return int(node.name.removeprefix("node"))
    return None


def _parsed(processors: str) -> set[int]:
    """The numbers in `0-3,8-11`."""
    numbers: set[int] = set()
    for part in filter(None, processors.strip().split(",")):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers
