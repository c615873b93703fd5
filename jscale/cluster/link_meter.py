"""How fast a worker's link is, and how busy."""

import dataclasses
import fcntl
import socket
import struct
from pathlib import Path

from jscale.core.units import mbit_to_bytes_per_s
from jscale.transport.pacing import LinkPacer

_SIOCGIFADDR = 0x8915
_INTERFACES = Path("/sys/class/net")


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
        self, address: str, *, rate_mbit_s: float | None, pacer: LinkPacer | None
    ) -> None:
        """Finds the link.

        Args:
          address: `tcp://HOST:PORT` of this machine.
          rate_mbit_s: as its operator says; None: as the kernel does.
          pacer: the emulated link, which then counts instead.
        """
        self._pacer = pacer
        host = address.rpartition("://")[2].rpartition(":")[0]
        self._interface = _interface_of(host)
        rate_mbit_s = rate_mbit_s or _rate_mbit_s(self._interface)
        self.rate_bytes_per_s = mbit_to_bytes_per_s(rate_mbit_s) if rate_mbit_s else 0.0
        """What it carries in each direction; 0 if that is not known."""

    def read(self, now_ns: int) -> LinkCount | None:
        """What has crossed it by now; None if it is not measured."""
        if not self.rate_bytes_per_s:
            return None
        if self._pacer is not None:
            sent, received = self._pacer.outgoing, self._pacer.incoming
            return LinkCount(now_ns, sent.total_bytes, received.total_bytes)
        if self._interface is None:
            return None
        statistics = _INTERFACES / self._interface / "statistics"
        try:
            sent_bytes = int((statistics / "tx_bytes").read_text())
            received_bytes = int((statistics / "rx_bytes").read_text())
        except (OSError, ValueError):
            return None
        return LinkCount(now_ns, sent_bytes, received_bytes)


def _interface_of(host: str) -> str | None:
    """The network interface that has the address; None if none is seen to."""
    try:
        wanted = socket.inet_aton(socket.gethostbyname(host))
    except (OSError, UnicodeError):
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:
                continue  # It has no such address.
            if answer[20:24] == wanted:
                return name
    return None


def _rate_mbit_s(interface: str | None) -> float | None:
    """What the kernel knows; loopback and some virtual links have no rate."""
    if interface is None or interface == "lo":
        return None
    try:
        rate = int((_INTERFACES / interface / "speed").read_text())
    except (OSError, ValueError):
        return None
    return rate if rate > 0 else None
