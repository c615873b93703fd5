"""Which hosts have the model in memory, and from where a worker loads it best."""

import dataclasses

from jscale.simulation.machines import Device, Machines
from jscale.simulation.network import Link
from jscale.simulation.settings import System


@dataclasses.dataclass(frozen=True)
class Copy:
    """Where a worker can load the model from, and over which links."""

    tier: str
    links: tuple[Link, ...]


class HostCaches:
    """Owns the copies in the memory of hosts."""

    def __init__(self, system: System, machines: Machines) -> None:
        self._system = system
        self._machines = machines
        self._num_users: dict[int, int] = {}
        self._until_ns: dict[int, int | None] = {}

    def holds(self, host: int, now_ns: int) -> bool:
        """Whether the host has a copy."""
        match self._system.host_cache:
            case "all":
                return True
            case "one":
                return host == 0
            case "used":
                if self._num_users.get(host):
                    return True
                until_ns = self._until_ns.get(host, -1)
                return until_ns is None or now_ns < until_ns
        return False

    def used(self, host: int) -> None:
        """A worker of the host holds the model now."""
        self._num_users[host] = self._num_users.get(host, 0) + 1

    def unused(self, host: int, now_ns: int) -> None:
        """It does not any more; what was in the host's memory stays for a while."""
        self._num_users[host] -= 1
        keep_ns = self._system.keep_cached_ns
        self._until_ns[host] = None if keep_ns is None else now_ns + keep_ns

    def best_copy(self, device: Device, now_ns: int) -> Copy:
        """The host's own memory, another host's, or the disk."""
        bus = self._machines.bus(device)
        if self.holds(device.host, now_ns):
            return Copy("host", (bus,))
        if self._system.host_cache == "one":
            return Copy(
                "host", (*self._machines.path_between_hosts(0, device.host), bus)
            )
        return Copy("disk", (self._machines.disk(device.host), bus))
