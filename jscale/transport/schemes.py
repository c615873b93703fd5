"""Schemes of addresses, and what `--transport` says about them. Pure."""

from jscale.core.errors import ConfigError

SCHEMES = ("mem", "tcp", "rdma")
AUTO = "auto"
TRANSPORTS = (AUTO, "tcp", "rdma")
"""What `--transport` takes; auto: RDMA where it can be used, else TCP."""


def scheme_of(address: str) -> str:
    """The scheme of `scheme://rest`.

    Raises:
      ConfigError: there is none, or nobody speaks it.
    """
    scheme, separator, _ = address.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ConfigError(
            f"address {address!r} has no known scheme; "
            f"use {' or '.join(f'{known}://…' for known in SCHEMES)}"
        )
    return scheme


def demanded_scheme(address: str, transport: str) -> str | None:
    """The scheme that address and `--transport` leave no choice of; None: any.

    Args:
      address: `HOST:PORT` or `scheme://HOST:PORT`.
      transport: one of `TRANSPORTS`.

    Raises:
      ConfigError: they contradict each other, or nobody knows one of them.
    """
    if transport not in TRANSPORTS:
        raise ConfigError(
            f"transport is {transport!r}: give one of {', '.join(TRANSPORTS)}"
        )
    if "://" not in address:
        return None if transport == AUTO else transport
    scheme = scheme_of(address)
    if transport not in (AUTO, scheme):
        raise ConfigError(
            f"transport is {transport} and data_address {address}: give HOST:PORT "
            "alone, or the same in both"
        )
    return scheme
