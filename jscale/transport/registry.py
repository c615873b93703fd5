"""Which file speaks which scheme."""

import importlib
from collections.abc import Callable
from typing import cast

from jscale.core.errors import ConfigError
from jscale.transport.base import Transport, TransportConfig

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


def open_transport(address: str, config: TransportConfig) -> Transport:
    """The transport for addresses like `address`, of which only the scheme counts.

    Raises:
      ConfigError: nobody speaks the scheme.
    """
    module, name = _MODULES[scheme_of(address)]
    make = getattr(importlib.import_module(module), name)
    return cast(Callable[[TransportConfig], Transport], make)(config)
