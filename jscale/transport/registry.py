"""Which file speaks which scheme."""

import importlib
from collections.abc import Callable
from typing import cast

from jscale.core.errors import ConfigError
from jscale.transport.base import Hello, Transport
from jscale.transport.checksum import Checksum, crc32c
from jscale.transport.pacing import LinkPacer

TIMEOUT_S = 5.0
"""A peer that takes nothing for this long is lost; a cut cable is noticed by it."""

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
) -> Transport:
    """The transport for addresses like `address`.

    Args:
      address: only its scheme counts.
      hello: who we are; peers with another token are refused.
      link: emulates a link rate, over all that shares it; None: as fast as it goes.
      timeout_s: bound on making a connection and on a peer that takes nothing.
      checksum: what senders put beside a chunk; tests make it lie.

    Raises:
      ConfigError: nobody speaks the scheme.
    """
    module, name = _MODULES[scheme_of(address)]
    make = cast(
        Callable[..., Transport], getattr(importlib.import_module(module), name)
    )
    return make(hello, link=link, timeout_s=timeout_s, checksum=checksum)
