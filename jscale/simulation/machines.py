"""Hosts and devices of a simulated cluster, the links between them, cached copies."""

import dataclasses
from collections.abc import Sequence

from jscale.core.ids import WorkerId
from jscale.simulation.network import Link, Network
from jscale.simulation.settings import ClusterSpec


@dataclasses.dataclass(frozen=True)
class Device:
    """A device, and the host that it is in; both count from 0."""

    host: int
    index: int


class Machines:
    """Owns who is on which device, and the links of hosts and devices."""

    def __init__(self, spec: ClusterSpec, network: Network) -> None:
        self.spec = spec
        self._network = network
        self._links: dict[str, Link] = {}
        self._shares: dict[int, float] = {}
        self._device_of: dict[WorkerId, Device] = {}
        self._num_free = spec.num_devices
        self._on: list[list[WorkerId | None]] = [
            [None] * spec.devices_per_host for _ in range(spec.num_hosts)
        ]

    @property
    def num_free_devices(self) -> int:
        """Devices that nobody is on."""
        return self._num_free

    @property
    def workers_on(self) -> Sequence[Sequence[WorkerId | None]]:
        """Who is on each device of each host."""
        return self._on

    def take(self, worker: WorkerId, device: Device) -> None:
        """Puts a worker on a device that is free."""
        assert self._on[device.host][device.index] is None, device
        self._on[device.host][device.index] = worker
        self._num_free -= 1
        self._device_of[worker] = device

    def free(self, worker: WorkerId) -> None:
        """The worker's device is free again."""
        device = self._device_of.pop(worker)
        self._num_free += 1
        self._on[device.host][device.index] = None

    def device_of(self, worker: WorkerId) -> Device | None:
        """Where a worker is, if it is."""
        return self._device_of.get(worker)

    def path(self, source: Device, target: Device) -> tuple[Link, ...]:
        """The links from one device to another."""
        if source == target:
            return ()
        if source.host == target.host:
            return (
                self._link(f"{source.host}.{source.index} to others", self._local),
                self._link(f"others to {target.host}.{target.index}", self._local),
            )
        return self.path_between_hosts(source.host, target.host)

    def path_between_hosts(self, source: int, target: int) -> tuple[Link, ...]:
        """The links from one host's NIC to another's."""
        out, into = self.nic_out(source), self.nic_in(target)
        per_leaf = self.spec.hosts_per_leaf
        if per_leaf is None or source // per_leaf == target // per_leaf:
            return (out, into)
        rate = self.spec.leaf_bytes_per_s
        up = self._link(f"leaf {source // per_leaf} up", rate)
        down = self._link(f"leaf {target // per_leaf} down", rate)
        return (out, up, down, into)

    def nic_out(self, host: int) -> Link:
        """What leaves a host."""
        return self._link(f"host {host} out", self.nic_bytes_per_s)

    def nic_in(self, host: int) -> Link:
        """What enters a host."""
        return self._link(f"host {host} in", self.nic_bytes_per_s)

    def disk(self, host: int) -> Link:
        """Its SSD."""
        return self._link(f"host {host} disk", self.spec.disk_bytes_per_s)

    def bus(self, device: Device) -> Link:
        """From the host's memory to the device."""
        rate = self.spec.host_to_device_bytes_per_s
        return self._link(f"{device.host}.{device.index} bus", rate)

    @property
    def slow_hosts(self) -> list[int]:
        """Hosts whose NICs have less than their rate."""
        return list(self._shares)

    def is_cut(self, host: int) -> bool:
        """Whether nothing goes through the host's NIC."""
        return self._shares.get(host) == 0

    def slow_down(self, host: int, share: float) -> None:
        """The host's NIC has so much of its rate in both directions from now on."""
        self._shares[host] = share
        if share == 1:
            del self._shares[host]
        for link in (self.nic_out(host), self.nic_in(host)):
            self._network.set_rate(link, self.nic_bytes_per_s * share)

    @property
    def nic_bytes_per_s(self) -> float:
        """All NICs of a host together, each direction."""
        return self.spec.nic_bytes_per_s * self.spec.nics_per_host

    @property
    def _local(self) -> float:
        return self.spec.local_bytes_per_s

    def _link(self, name: str, bytes_per_s: float) -> Link:
        link = self._links.get(name)
        if link is None:
            link = self._links[name] = Link(name, bytes_per_s)
        return link
