"""Trees like those below /sys on machines that have RDMA devices."""

import dataclasses
from pathlib import Path

V1, V2 = "IB/RoCE v1", "RoCE v2"
LINK_LOCAL = "fe80:0000:0000:0000:e42d:1fff:fe01:0203"
GLOBAL = "2001:0db8:0000:0000:0000:0000:0000:0002"


def mapped(host: str) -> str:
    """An IPv4 address as sysfs writes its GID."""
    numbers = [int(number) for number in host.split(".")]
    return "0000:0000:0000:0000:0000:ffff:{:02x}{:02x}:{:02x}{:02x}".format(*numbers)


@dataclasses.dataclass(frozen=True)
class FakePort:
    gids: tuple[tuple[str, str, str], ...] = ()
    """Address, kind and interface of each."""
    state: str = "4: ACTIVE"
    rate: str = "100 Gb/sec (4X EDR)"
    link_layer: str = "Ethernet"
    lid: str = "0x0"


def add_device(
    root: Path, name: str, *ports: FakePort, numa: int | None = None
) -> None:
    device = root / "class/infiniband" / name
    for number, port in enumerate(ports, 1):
        folder = device / "ports" / str(number)
        for part in ("gids", "gid_attrs/types", "gid_attrs/ndevs"):
            (folder / part).mkdir(parents=True)
        for part in ("state", "rate", "link_layer", "lid"):
            (folder / part).write_text(getattr(port, part) + "\n")
        for index, (address, kind, netdev) in enumerate(port.gids):
            (folder / "gids" / str(index)).write_text(address + "\n")
            (folder / "gid_attrs/types" / str(index)).write_text(kind + "\n")
            if netdev:
                (folder / "gid_attrs/ndevs" / str(index)).write_text(netdev + "\n")
        unused = folder / "gids" / str(len(port.gids))
        unused.write_text("0000:0000:0000:0000:0000:0000:0000:0000\n")
    if numa is not None:
        (device / "device").mkdir()
        (device / "device/numa_node").write_text(f"{numa}\n")


def roce(host: str, netdev: str = "eth0", **other: str) -> FakePort:
    """A port as mlx5 has it: link-local and IPv4, each in version 1 and 2."""
    addresses = (LINK_LOCAL, mapped(host))
    gids = [(address, kind, netdev) for address in addresses for kind in (V1, V2)]
    return FakePort(tuple(gids), **other)


def infiniband(lid: str = "0x1c") -> FakePort:
    gid = "fe80:0000:0000:0000:0002:c903:0012:3456"
    return FakePort(
        ((gid, V1, ""),), link_layer="InfiniBand", lid=lid, rate="200 Gb/sec (4X HDR)"
    )


def soft_roce(host: str, netdev: str) -> FakePort:
    """As Debian's rdma_rxe has it: no PCI device, so no NUMA node."""
    gids = ((LINK_LOCAL, V2, netdev), (mapped(host), V2, netdev))
    return FakePort(gids, rate="2.5 Gb/sec (1X SDR)")
