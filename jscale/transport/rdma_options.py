"""What an operator may say about `rdma://`."""

import dataclasses

from jscale.core.errors import ConfigError

RETRY_S = 2.0
"""Long enough for a link that goes down and up, short beside a scale-out."""

DEPTH = 16
"""Chunks on their way in one connection at most. 16 of 4 MiB, as large models have
them, are what 400 Gbit/s carry in 1.3 ms; of 256 KiB in 84 µs, and a connection has
receive buffers for three times as many."""

CONNECTIONS = 128
"""At once in one process, at most: what queues are sized for. Memory is taken for
those that there are, about 2 MiB each."""

RETRY_S_MAX = 60.0
DEPTH_MAX = 4096
CONNECTIONS_MAX = 65536
GID_INDEX_MAX = 255


@dataclasses.dataclass(frozen=True)
class RdmaOptions:
    """Which devices are used, and how.

    Attributes:
      devices: names as `ibv_devices` lists them, `mlx5_0` or `mlx5_0:2` (the port; else
        the first that is active), in the order in which chunks are spread over them;
        none: those that suit the worker's address and memory.
      gid_index: which address of the port is used; None: RoCE v2 where there is one.
      retry_s: how long a peer that does not answer is tried again before it is lost.
      pulls: targets read chunks (`RDMA_READ`), instead of being written to.
      depth: chunks on their way in one connection, at most.
      connections: of one process at once, at most.
    """

    devices: tuple[str, ...] = ()
    gid_index: int | None = None
    retry_s: float = RETRY_S
    pulls: bool = False
    depth: int = DEPTH
    connections: int = CONNECTIONS

    def __post_init__(self) -> None:
        names = self.devices
        if not all(names) or len(set(names)) != len(names):
            raise ConfigError(
                f"rdma devices are {','.join(names)!r}: name each once, as "
                "jscale-doctor lists them"
            )
        _require_between("rdma gid_index", self.gid_index, 0, GID_INDEX_MAX)
        _require_between("rdma depth", self.depth, 1, DEPTH_MAX)
        _require_between("rdma connections", self.connections, 1, CONNECTIONS_MAX)
        if not 0 < self.retry_s <= RETRY_S_MAX:
            raise ConfigError(
                f"rdma retry_s is {self.retry_s}: give seconds over 0, at most "
                f"{RETRY_S_MAX:.0f}"
            )


def parse_devices(names: str) -> tuple[str, ...]:
    """The names in `mlx5_0,mlx5_1:2`; none in an empty text."""
    return tuple(name.strip() for name in names.split(",")) if names else ()


def _require_between(name: str, value: int | None, least: int, most: int) -> None:
    if value is not None and not least <= value <= most:
        raise ConfigError(f"{name} is {value}: give {least} to {most}")


RDMA_DEFAULTS = RdmaOptions()
"""Nothing was said."""
