"""A port in the cost model: the lanes by which chunks leave and enter."""

import heapq
from collections.abc import Sequence

from jscale.core.topology import Host


class Lanes:
    """Lanes of one direction, known by their rates; owned by one computation."""

    def __init__(self, rates_bytes_per_s: Sequence[float]) -> None:
        """All are free."""
        self._free = sorted(-rate for rate in rates_bytes_per_s)

    @property
    def has_free(self) -> bool:
        """Whether a chunk can begin to cross."""
        return bool(self._free)

    def take(self) -> float:
        """The fastest free lane, in bytes/s."""
        return -heapq.heappop(self._free)

    def give_back(self, rate_bytes_per_s: float) -> None:
        """A lane is free again."""
        heapq.heappush(self._free, -rate_bytes_per_s)


def nic_lanes(host: Host) -> tuple[Lanes, Lanes]:
    """Out and in, for all workers of a host: one each way for each NIC."""
    return (
        Lanes([nic.free_outbound_bytes_per_s for nic in host.nics]),
        Lanes([nic.free_inbound_bytes_per_s for nic in host.nics]),
    )


def local_lanes(host: Host) -> tuple[Lanes, Lanes]:
    """Out and in, for one worker: to and from others on its host."""
    rates = [host.local_rate_bytes_per_s]
    return Lanes(rates), Lanes(rates)
