"""What links workers: NICs, hosts, leaf switches, and how fast each direction is."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Mapping

from jscale.core.errors import ConfigError
from jscale.core.ids import WorkerId


@dataclasses.dataclass(frozen=True)
class Nic:
    """A port of a host. Links are full duplex: each direction has a rate of its own.

    Args:
      outbound_bytes_per_s: what leaves by it at most.
      inbound_bytes_per_s: what enters by it at most.
      outbound_busy: share of the outbound direction that serving uses, 0 to under 1.
      inbound_busy: the same of the inbound direction.

    Raises:
      ConfigError: a rate or a share is out of its range.
    """

    outbound_bytes_per_s: float
    inbound_bytes_per_s: float
    outbound_busy: float = 0.0
    inbound_busy: float = 0.0

    def __post_init__(self) -> None:
        _check_rate("outbound_bytes_per_s", self.outbound_bytes_per_s)
        _check_rate("inbound_bytes_per_s", self.inbound_bytes_per_s)
        for name in ("outbound_busy", "inbound_busy"):
            share = getattr(self, name)
            if not 0 <= share < 1:
                raise ConfigError(f"NIC with {name} {share}: give 0 to under 1")

    @property
    def free_outbound_bytes_per_s(self) -> float:
        """What is left for a multicast to send."""
        return self.outbound_bytes_per_s * (1 - self.outbound_busy)

    @property
    def free_inbound_bytes_per_s(self) -> float:
        """What is left for a multicast to receive."""
        return self.inbound_bytes_per_s * (1 - self.inbound_busy)


@dataclasses.dataclass(frozen=True)
class Host:
    """A machine: its workers share its NICs and reach each other without them.

    Args:
      workers: who runs here; at least one.
      nics: its ports; at least one. With several, as many chunks travel at a time.
      leaf: name of the switch that they are plugged into.
      local_bytes_per_s: between any two of its workers (NVLink, shared memory), each
        worker and direction for itself; None: as fast as its fastest NIC.

    Raises:
      ConfigError: there is no worker, no NIC, or the local rate is no rate.
    """

    workers: tuple[WorkerId, ...]
    nics: tuple[Nic, ...]
    leaf: str = ""
    local_bytes_per_s: float | None = None

    def __post_init__(self) -> None:
        if not self.workers or not self.nics:
            raise ConfigError(
                f"host with {len(self.workers)} workers and {len(self.nics)} NICs: "
                "give at least one of each"
            )
        if self.local_bytes_per_s is not None:
            _check_rate("local_bytes_per_s", self.local_bytes_per_s)

    @property
    def local_rate_bytes_per_s(self) -> float:
        """Between two workers of this host."""
        if self.local_bytes_per_s is not None:
            return self.local_bytes_per_s
        return max(
            min(nic.outbound_bytes_per_s, nic.inbound_bytes_per_s) for nic in self.nics
        )

    @property
    def free_outbound_bytes_per_s(self) -> float:
        """What all NICs have left to send."""
        return sum(nic.free_outbound_bytes_per_s for nic in self.nics)

    @property
    def free_inbound_bytes_per_s(self) -> float:
        """What all NICs have left to receive."""
        return sum(nic.free_inbound_bytes_per_s for nic in self.nics)

    @property
    def outbound_busy(self) -> float:
        """Share of what all NICs can send that serving uses."""
        total = sum(nic.outbound_bytes_per_s for nic in self.nics)
        return 1 - self.free_outbound_bytes_per_s / total


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A switch that hosts are plugged into, and what it carries to and from others.

    Inside, every NIC has its full rate.

    Raises:
      ConfigError: a rate is out of its range.
    """

    name: str
    up_bytes_per_s: float
    down_bytes_per_s: float

    def __post_init__(self) -> None:
        _check_rate("up_bytes_per_s", self.up_bytes_per_s)
        _check_rate("down_bytes_per_s", self.down_bytes_per_s)


@dataclasses.dataclass(frozen=True)
class Topology:
    """Hosts and leaf switches.

    Args:
      hosts: every host; no worker is on two.
      leaves: leaf switches whose links to the others may be too narrow for their hosts;
        one that is not named carries everything.
      hop_latency_ns: from one end of a cable to the other.

    Raises:
      ConfigError: a worker or a leaf comes twice, a leaf has no host, or the latency is
        negative.
    """

    hosts: tuple[Host, ...]
    leaves: tuple[Leaf, ...] = ()
    hop_latency_ns: int = 0

    def __post_init__(self) -> None:
        workers = [worker for host in self.hosts for worker in host.workers]
        _check_distinct("workers", workers)
        _check_distinct("leaves", [leaf.name for leaf in self.leaves])
        used = {host.leaf for host in self.hosts}
        if empty := {leaf.name for leaf in self.leaves} - used:
            raise ConfigError(
                f"topology with leaves {sorted(empty)} that no host is plugged into: "
                f"name one of {sorted(used)}"
            )
        if self.hop_latency_ns < 0:
            raise ConfigError(
                f"topology with hop_latency_ns {self.hop_latency_ns}: give 0 or more"
            )

    @classmethod
    def uniform(
        cls,
        workers: Iterable[WorkerId],
        bytes_per_s: float,
        *,
        hop_latency_ns: int = 0,
    ) -> "Topology":
        """Workers on a host of their own each, all alike, under one switch."""
        nics = (Nic(bytes_per_s, bytes_per_s),)
        hosts = tuple(Host((worker,), nics) for worker in workers)
        return cls(hosts, hop_latency_ns=hop_latency_ns)

    def host_of(self, worker: WorkerId) -> Host:
        """The host that a worker runs on.

        Raises:
          ConfigError: the topology has no such worker.
        """
        try:
            return self._host_of[worker]
        except KeyError:
            raise ConfigError(
                f"{worker} is on none of the {len(self.hosts)} hosts of this topology: "
                "add it to one"
            ) from None

    def leaf_named(self, name: str) -> Leaf | None:
        """The leaf switch, or None if it carries everything."""
        return self._leaf_named.get(name)

    def num_hops(self, source: WorkerId, target: WorkerId) -> int:
        """Cables between two workers: 1 in a host, 2 by a leaf, 4 from leaf to leaf."""
        source_host, target_host = self.host_of(source), self.host_of(target)
        if source_host is target_host:
            return 1
        return 2 if source_host.leaf == target_host.leaf else 4

    @functools.cached_property
    def _host_of(self) -> Mapping[WorkerId, Host]:
        return {worker: host for host in self.hosts for worker in host.workers}

    @functools.cached_property
    def _leaf_named(self) -> Mapping[str, Leaf]:
        return {leaf.name: leaf for leaf in self.leaves}


def _check_rate(name: str, bytes_per_s: float) -> None:
    if not (math.isfinite(bytes_per_s) and bytes_per_s > 0):
        raise ConfigError(f"link with {name} {bytes_per_s}: give more than 0")


def _check_distinct(what: str, names: list[WorkerId] | list[str]) -> None:
    pairs = itertools.pairwise(sorted(names))
    if twice := sorted({name for name, following in pairs if name == following}):
        raise ConfigError(f"topology with {what} {twice} twice: name each once")
