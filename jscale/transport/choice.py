"""Which transport carries a worker's data: what was asked for, or what there is."""

import dataclasses
import socket
import urllib.parse
from collections.abc import Callable

from jscale.core.errors import ConfigError
from jscale.transport.rdma_devices import RdmaPort, choose_ports, list_ports, settled
from jscale.transport.rdma_options import RDMA_DEFAULTS, RdmaOptions
from jscale.transport.rdma_presence import why_not_rdma
from jscale.transport.schemes import AUTO, demanded_scheme, scheme_of


@dataclasses.dataclass(frozen=True)
class TransportChoice:
    """Where a worker listens for data, and why so.

    Attributes:
      address: `scheme://host:port`.
      reason: what speaks for the scheme, for the log and for people.
      ports: the RDMA ports that are used; none by TCP.
      options: those that were given, with the ports named.
    """

    address: str
    reason: str
    ports: tuple[RdmaPort, ...] = ()
    options: RdmaOptions = RDMA_DEFAULTS

    @property
    def scheme(self) -> str:
        """What carries the data."""
        return scheme_of(self.address)


def choose_transport(
    address: str,
    transport: str = AUTO,
    options: RdmaOptions = RDMA_DEFAULTS,
    *,
    why_not: Callable[[], str | None] = why_not_rdma,
    ports: Callable[[], tuple[RdmaPort, ...]] = list_ports,
    near_numa: int | None = None,
) -> TransportChoice:
    """The address with its scheme, and why it is that.

    Args:
      address: `HOST:PORT` or `scheme://HOST:PORT`, of this machine.
      transport: one of `TRANSPORTS`.
      options: which RDMA devices are to be used.
      why_not: what is missing for RDMA, if something is.
      ports: what RDMA ports there are.
      near_numa: node of the memory that is to be reached; None: not known.

    Raises:
      ConfigError: RDMA was demanded and cannot be used, says why; or address and
        transport cannot be meant together.
    """
    demanded = demanded_scheme(address, transport)
    rest = address.rpartition("://")[2]
    if demanded not in (None, "rdma"):
        return TransportChoice(f"{demanded}://{rest}", "as it was asked for")
    missing = why_not()
    chosen: tuple[RdmaPort, ...] = ()
    if missing is None:
        try:
            chosen = choose_ports(
                ports(), options, near_numa=near_numa, host=_ip_address(rest)
            )
        except ConfigError as error:
            missing = str(error)
    if missing is None:
        return TransportChoice(
            f"rdma://{rest}", describe(chosen), chosen, settled(options, chosen)
        )
    if demanded == "rdma":
        raise ConfigError(f"RDMA was asked for and cannot be used: {missing}")
    return TransportChoice(f"tcp://{rest}", f"no RDMA: {missing}")


def describe(ports: tuple[RdmaPort, ...]) -> str:
    """Which ports are used, by which addresses."""
    return "by " + ", ".join(
        f"{port.name} ({port.rate_gbit_s:g} Gbit/s, GID {port.gid_index}"
        f"{f' {port.gid.host}' if port.gid else ''})"
        for port in ports
    )


def _ip_address(rest: str) -> str:
    """The IP address of the host in HOST:PORT; as it is, if nobody knows one."""
    host = urllib.parse.urlsplit(f"//{rest}").hostname or ""
    try:
        return str(socket.getaddrinfo(host, None)[0][4][0])
    except OSError:
        return host
