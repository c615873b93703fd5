"""Where this process runs, on machines whose memory is nearer to some processors."""

import os
from pathlib import Path

from jscale.transport.rdma_devices import SYSFS


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
