"""Which file speaks which scheme."""

import importlib
from collections.abc import Callable
from typing import cast

from jscale.core.errors import TransportError
from jscale.transport.base import TIMEOUT_S, Hello, Transport, TransportConfig
from jscale.transport.checksum import Checksum, crc32c
from jscale.transport.pacing import LinkPacer
from jscale.transport.rdma_options import RDMA_DEFAULTS, RdmaOptions
from jscale.transport.rdma_presence import raise_locked_limit, why_not_rdma
from jscale.transport.schemes import scheme_of

_MODULES = {
    "mem": ("jscale.transport.mem", "MemTransport"),
    "tcp": ("jscale.transport.tcp", "TcpTransport"),
    "rdma": ("jscale.transport.rdma", "RdmaTransport"),
}


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
      TransportError: it is `rdma`, and something is missing for that.
    """
    scheme = scheme_of(address)
    if scheme == "rdma":
        if missing := why_not_rdma():
            raise TransportError(missing)
        raise_locked_limit()
    module, name = _MODULES[scheme]
    make = cast(
        Callable[[TransportConfig], Transport],
        getattr(importlib.import_module(module), name),
    )
    return make(TransportConfig(hello, link, timeout_s, checksum, rdma))
