"""RDMA devices as the kernel lists them, and which of them a worker uses.

Reads files below /sys/class/infiniband only, so that it answers wherever pyverbs is
missing, too. The MTU of a port is not among them: verbs tell it.
"""

import dataclasses
import ipaddress
from collections.abc import Iterable, Sequence
from pathlib import Path

from jscale.core.errors import ConfigError
from jscale.transport.rdma_options import RdmaOptions

SYSFS = Path("/sys")
ACTIVE = "ACTIVE"
ETHERNET = "Ethernet"
INFINIBAND = "InfiniBand"
ROCE_V2 = "RoCE v2"
EMPTY_PLACES_MAX = 32
"""In a row, after which a table of addresses is taken to be at its end. It is filled
from the first place, with holes where one has gone; soft-RoCE's has a thousand places,
and reading them takes seconds on a slow machine."""


@dataclasses.dataclass(frozen=True)
class Gid:
    """One address of a port.

    Attributes:
      index: its place in the port's table, which queue pairs are told.
      address: as IPv6 addresses are written; RoCE of IPv4 is `::ffff:10.0.0.2`.
      kind: "RoCE v2", "IB/RoCE v1", as the kernel says; on InfiniBand the latter.
      netdev: the network interface it belongs to; none on InfiniBand.
    """

    index: int
    address: str
    kind: str
    netdev: str = ""

    @property
    def host(self) -> str:
        """The IP address that it stands for, without the mapping of IPv4."""
        address = ipaddress.IPv6Address(self.address)
        return str(address.ipv4_mapped or address)

    @property
    def is_ipv4(self) -> bool:
        """Whether it stands for an IPv4 address."""
        return ipaddress.IPv6Address(self.address).ipv4_mapped is not None


@dataclasses.dataclass(frozen=True)
class RdmaPort:
    """A port of a device, and the address by which it is used.

    Attributes:
      device: its name, as `ibv_devices` lists it.
      port: from 1 on.
      state: ACTIVE, DOWN, INIT, ….
      link_layer: Ethernet (RoCE) or InfiniBand.
      rate_gbit_s: what the link was negotiated to.
      gids: every address it has.
      gid_index: the one to be used; None: there is none that can be.
      numa_node: where it is plugged in; None: not known, as for software devices.
      lid: its address in the subnet; InfiniBand only.
    """

    device: str
    port: int
    state: str
    link_layer: str
    rate_gbit_s: float
    gids: tuple[Gid, ...]
    gid_index: int | None = None
    numa_node: int | None = None
    lid: int = 0

    @property
    def gid(self) -> Gid | None:
        """The address to be used."""
        return next((gid for gid in self.gids if gid.index == self.gid_index), None)

    @property
    def name(self) -> str:
        """How logs call it."""
        return f"{self.device}:{self.port}"

    def describe(self) -> str:
        """Device, state and rate in a few words."""
        return f"{self.name} {self.state} {self.rate_gbit_s:g} Gbit/s {self.link_layer}"


def list_ports(root: Path = SYSFS) -> tuple[RdmaPort, ...]:
    """Every port of every device, with the address that suits it best.

    Args:
      root: where sysfs is mounted.
    """
    return tuple(
        _read_port(device, folder)
        for device in _devices(root)
        for folder in sorted(_folders(device / "ports"), key=_natural)
    )


def has_ports(root: Path = SYSFS) -> bool:
    """Whether there is any; quicker than `list_ports`."""
    return any(_folders(device / "ports") for device in _devices(root))


def choose_ports(
    ports: Sequence[RdmaPort],
    options: RdmaOptions,
    *,
    near_numa: int | None = None,
    host: str = "",
) -> tuple[RdmaPort, ...]:
    """The ports that a worker uses, each with the address it is used by. Pure.

    Those that the options name, in that order. If they name none, of the active ones:
    the port whose RoCE address is the worker's own; else those that are plugged in
    nearest, and of these the fastest.

    Args:
      ports: what there is.
      options: what the operator said.
      near_numa: node of the memory that is to be reached; None: not known.
      host: the IP address that others know the worker by.

    Raises:
      ConfigError: none can be used, or not as the options want it; says what there is.
    """
    if options.devices:
        chosen = [_named(name, ports) for name in options.devices]
    else:
        chosen = _suitable(ports, near_numa, host)
    if not chosen:
        raise ConfigError(
            f"no active RDMA port: there is {_listed(ports)}; "
            "check cables and `ip link`, or use --transport=tcp"
        )
    return tuple(_with_gid(port, options.gid_index, host) for port in chosen)


def settled(options: RdmaOptions, ports: Sequence[RdmaPort]) -> RdmaOptions:
    """Options by which these ports, once chosen, are chosen again. Pure."""
    indices = {port.gid_index for port in ports}
    return dataclasses.replace(
        options,
        devices=tuple(port.name for port in ports),
        gid_index=indices.pop() if len(indices) == 1 else options.gid_index,
    )


def best_gid(gids: Iterable[Gid], link_layer: str, host: str = "") -> Gid | None:
    """The address by which a port is reached; None: it has none that is routed.

    RoCE v2 of the worker's own address, of IPv4, of IPv6, of the link only; on
    InfiniBand the first.
    """
    if link_layer != ETHERNET:
        return next(iter(gids), None)
    routed = [gid for gid in gids if gid.kind == ROCE_V2]
    return max(routed, key=lambda gid: _fitness(gid, host), default=None)


def _fitness(gid: Gid, host: str) -> tuple[bool, bool, bool, int]:
    is_local = ipaddress.IPv6Address(gid.address).is_link_local
    return gid.host == host, gid.is_ipv4, not is_local, -gid.index


def _named(name: str, ports: Sequence[RdmaPort]) -> RdmaPort:
    """The port `device:1`, or the active one of `device`."""
    own = [port for port in ports if name in (port.device, port.name)]
    if not own:
        raise ConfigError(f"no RDMA device {name!r}: there is {_listed(ports)}")
    active = [port for port in own if port.state == ACTIVE]
    if not active:
        raise ConfigError(
            f"RDMA device {name!r} is not active: {_listed(own)}; check its cable "
            "and `ip link`"
        )
    return active[0]


def _suitable(
    ports: Sequence[RdmaPort], near_numa: int | None, host: str
) -> list[RdmaPort]:
    active = [port for port in ports if port.state == ACTIVE]
    if own := [port for port in active if _speaks_as(port, host)]:
        return own[:1]
    near = [port for port in active if port.numa_node == near_numa is not None]
    candidates = near or active
    rate_gbit_s = max((port.rate_gbit_s for port in candidates), default=0.0)
    return [port for port in candidates if port.rate_gbit_s == rate_gbit_s]


def _speaks_as(port: RdmaPort, host: str) -> bool:
    return any(gid.host == host and gid.kind == ROCE_V2 for gid in port.gids)


def _with_gid(port: RdmaPort, gid_index: int | None, host: str) -> RdmaPort:
    known = {gid.index for gid in port.gids}
    if gid_index is None:
        best = best_gid(port.gids, port.link_layer, host)
        gid_index = best.index if best else None
    elif gid_index not in known:
        raise ConfigError(
            f"RDMA port {port.name} has no GID {gid_index}: it has "
            f"{_joined(str(index) for index in sorted(known))}"
        )
    if gid_index is None:
        raise ConfigError(
            f"RDMA port {port.name} has no RoCE v2 GID: give its interface an IP "
            "address, or choose another GID by --rdma_gid_index"
        )
    return dataclasses.replace(port, gid_index=gid_index)


def _listed(ports: Iterable[RdmaPort]) -> str:
    return _joined(port.describe() for port in ports)


def _joined(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"


# --- sysfs ---------------------------------------------------------------------------


def _devices(root: Path) -> list[Path]:
    return sorted(_folders(root / "class/infiniband"), key=_natural)


def _read_port(device: Path, folder: Path) -> RdmaPort:
    link_layer = _read(folder / "link_layer") or INFINIBAND
    gids = tuple(_read_gids(folder))
    best = best_gid(gids, link_layer)
    numa_node = int(_read(device / "device/numa_node") or -1)
    rate = _read(folder / "rate").split()
    return RdmaPort(
        device=device.name,
        port=int(folder.name),
        state=_read(folder / "state").rpartition(":")[2].strip(),
        link_layer=link_layer,
        rate_gbit_s=float(rate[0]) if rate else 0.0,
        gids=gids,
        gid_index=best.index if best else None,
        numa_node=numa_node if numa_node >= 0 else None,
        lid=int(_read(folder / "lid") or "0", 16),
    )


def _read_gids(folder: Path) -> Iterable[Gid]:
    """Entries that are in use; reading the attributes of others fails."""
    num_empty = 0
    for path in sorted((folder / "gids").glob("*"), key=_natural):
        text = _read(path)
        num_empty = 0 if text.strip(":0") else num_empty + 1
        if num_empty == EMPTY_PLACES_MAX:
            return
        if not num_empty:
            attributes = folder / "gid_attrs"
            yield Gid(
                index=int(path.name),
                address=_mapped(ipaddress.IPv6Address(text)),
                kind=_read(attributes / "types" / path.name) or "IB/RoCE v1",
                netdev=_read(attributes / "ndevs" / path.name),
            )


def _mapped(address: ipaddress.IPv6Address) -> str:
    """As every Python writes it: some print the IPv4 part in hexadecimal."""
    return f"::ffff:{address.ipv4_mapped}" if address.ipv4_mapped else str(address)


def _read(path: Path) -> str:
    """A file's one line; nothing where it cannot be read, which sysfs may refuse."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read().decode().strip()
    except OSError:
        return ""


def _folders(path: Path) -> list[Path]:
    return list(path.iterdir()) if path.is_dir() else []


def _natural(path: Path) -> tuple[str, int]:
    """mlx5_2 before mlx5_10."""
    name = path.name.rstrip("0123456789")
    return name, int(path.name[len(name) :] or -1)
