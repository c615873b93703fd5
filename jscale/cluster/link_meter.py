"""How fast a worker's link is, and how busy."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jscale.core.units import mbit_to_bytes_per_s
from jscale.transport.interfaces import interface_of
from jscale.transport.pacing import LinkPacer
from jscale.transport.rdma_devices import SYSFS, RdmaPort

_RDMA_COUNT_BYTES = 4
"""What the counters of an RDMA port count in (InfiniBand architecture, PortCounters).
The network interface beside it does not count what goes by RDMA."""


@dataclasses.dataclass(frozen=True)
class LinkCount:
    """Bytes that have crossed a link since it came up, at a moment."""

    now_ns: int
    sent_bytes: int
    received_bytes: int

    def busy_since(
        self, before: "LinkCount", bytes_per_s: float
    ) -> tuple[float, float]:
        """Shares of each direction that were used meanwhile, out and in, 0 to 1.

        Rounded to twentieths: what matters is whether others need the link.
        """
        could_bytes = bytes_per_s * (self.now_ns - before.now_ns) / 1e9

        def share(moved_bytes: int) -> float:
            return min(1.0, round(20 * moved_bytes / could_bytes) / 20)

        return (
            share(self.sent_bytes - before.sent_bytes),
            share(self.received_bytes - before.received_bytes),
        )


class LinkMeter:
    """Reads the counters of the link by which an address is reached.

    A link whose rate nobody knows (loopback, a virtual one) is not measured.
    """

    def __init__(
        self,
        address: str,
        *,
        rate_mbit_s: float | None,
        pacer: LinkPacer | None,
        ports: Sequence[RdmaPort] = (),
        sysfs: Path = SYSFS,
    ) -> None:
        """Finds the link.

        Args:
          address: `tcp://HOST:PORT` of this machine.
          rate_mbit_s: as its operator says; None: as the kernel does.
          pacer: the emulated link, which then counts instead.
          ports: what data goes by, if it goes by RDMA.
          sysfs: where the kernel counts.
        """
        self._pacer = pacer
        if ports:
            self._counters = [_port_counters(sysfs, port) for port in ports]
            known_mbit_s = 1e3 * sum(port.rate_gbit_s for port in ports)
        else:
            host = address.rpartition("://")[2].rpartition(":")[0]
            interface = interface_of(host)
            self._counters = [_interface_counters(sysfs, interface)] * bool(interface)
            known_mbit_s = _rate_mbit_s(sysfs, interface) or 0.0
        rate_mbit_s = rate_mbit_s or known_mbit_s
        self.rate_bytes_per_s = mbit_to_bytes_per_s(rate_mbit_s) if rate_mbit_s else 0.0
        """What it carries in each direction; 0 if that is not known."""

    def read(self, now_ns: int) -> LinkCount | None:
        """What has crossed it by now; None if it is not measured."""
        if not self.rate_bytes_per_s:
            return None
        if self._pacer is not None:
            sent, received = self._pacer.outgoing, self._pacer.incoming
            return LinkCount(now_ns, sent.total_bytes, received.total_bytes)
        try:
            counts = [counters.read() for counters in self._counters]
        except (OSError, ValueError):
            return None
        if not counts:
            return None
        return LinkCount(
            now_ns,
            sent_bytes=sum(sent for sent, _ in counts),
            received_bytes=sum(received for _, received in counts),
        )


@dataclasses.dataclass(frozen=True)
class _Counters:
    """Where the kernel counts what is sent and received, and in what."""

    sent: Path
    received: Path
    unit_bytes: int = 1

    def read(self) -> tuple[int, int]:
        """Bytes sent and received."""
        sent, received = int(self.sent.read_text()), int(self.received.read_text())
        return sent * self.unit_bytes, received * self.unit_bytes


def _interface_counters(sysfs: Path, interface: str | None) -> _Counters:
    folder = sysfs / f"class/net/{interface}/statistics"
    return _Counters(folder / "tx_bytes", folder / "rx_bytes")


def _port_counters(sysfs: Path, port: RdmaPort) -> _Counters:
    folder = sysfs / f"class/infiniband/{port.device}/ports/{port.port}/counters"
    sent, received = folder / "port_xmit_data", folder / "port_rcv_data"
    return _Counters(sent, received, _RDMA_COUNT_BYTES)


def _rate_mbit_s(sysfs: Path, interface: str | None) -> float | None:
    """What the kernel knows; loopback and some virtual links have no rate."""
    if interface is None or interface == "lo":
        return None
    try:
        rate = int((sysfs / f"class/net/{interface}/speed").read_text())
    except (OSError, ValueError):
        return None
    return rate if rate > 0 else None
