"""Flags of what carries blocks and activations, for commands that start workers."""

from absl import flags

from jscale.transport.rdma_options import RETRY_S, RdmaOptions, parse_devices
from jscale.transport.schemes import AUTO, TRANSPORTS


def define() -> None:
    """`--transport`, and what RDMA may be told."""
    flags.DEFINE_enum(
        "transport",
        AUTO,
        TRANSPORTS,
        "What carries blocks and activations; auto: RDMA where it can be used, else "
        "TCP, and a log line says why. jscale-doctor tells beforehand.",
    )
    flags.DEFINE_string(
        "rdma_devices",
        "",
        "RDMA devices to spread chunks over, mlx5_0,mlx5_1:2 say; none: the one with "
        "the address of --data_address, else the fastest of the nearest.",
    )
    flags.DEFINE_integer(
        "rdma_gid_index",
        None,
        "Which address of their ports is used; none: RoCE v2 of IPv4 where there is.",
    )
    flags.DEFINE_float(
        "rdma_retry_s",
        RETRY_S,
        "Seconds that a peer which does not answer by RDMA is tried again until it is "
        "lost; links that go down and up take one or two.",
    )
    flags.DEFINE_boolean(
        "rdma_pull",
        False,
        "Blocks are read by those who want them, not written by those who have them.",
    )


def rdma_options() -> RdmaOptions:
    """What the flags say about RDMA.

    Raises:
      ConfigError: something that cannot be.
    """
    values = flags.FLAGS
    return RdmaOptions(
        devices=parse_devices(values.rdma_devices),
        gid_index=values.rdma_gid_index,
        retry_s=values.rdma_retry_s,
        pulls=values.rdma_pull,
    )
