"""Which file speaks which scheme."""

import importlib
from collections.abc import Callable
from typing import cast

from jscale.core.errors import ConfigError
from jscale.transport.base import TIMEOUT_S, Hello, Transport, TransportConfig
from jscale.transport.checksum import Checksum, crc32c
from jscale.transport.pacing import LinkPacer
from jscale.transport.rdma_options import RDMA_DEFAULTS, RdmaOptions

_MODULES = {
    "mem": ("jscale.transport.mem", "MemTransport"),
    "tcp": ("jscale.transport.tcp", "TcpTransport"),
}
SCHEMES = tuple(_MODULES)


def scheme_of(address: str) -> str:
    """The scheme of `scheme://rest`.

    Raises:
      ConfigError: there is none, or nobody speaks it.
    """
    scheme, separator, _ = address.partition("://")
    if not separator or scheme not in _MODULES:
        raise ConfigError(
            f"address {address!r} has no known scheme; "
            f"use {' or '.join(f'{known}://…' for known in SCHEMES)}"
        )
    return scheme


def open_transport(
    address: str,
    hello: Hello,
    *,
    link: LinkPacer | None = None,
    timeout_s: float = TIMEOUT_S,
    checksum: Checksum = crc32c,
    rdma: RdmaOptions = RDMA_DEFAULTS,
) -> Transport:
    """The transport for addresses like `address`, of which only the scheme counts.

    The other arguments are those of `TransportConfig`.

    Raises:
      ConfigError: nobody speaks the scheme.
    """
    module, name = _MODULES[scheme_of(address)]
    make = cast(
        Callable[[TransportConfig], Transport],
        getattr(importlib.import_module(module), name),
    )
    return make(TransportConfig(hello, link, timeout_s, checksum, rdma))
