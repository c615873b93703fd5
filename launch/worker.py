"""`jscale-worker`: holds blocks of the model and runs them."""

from absl import flags

from jscale.cluster.config import CACHE_DIR, WorkerConfig
from jscale.cluster.worker import run_worker
from jscale.launch import cluster_token, device_flags, mains, transport_flags


def define_flags() -> None:
    """One flag for each field of `WorkerConfig`."""
    flags.DEFINE_string(
        "worker", None, "Its name, unique in the cluster: w0 say.", required=True
    )
    flags.DEFINE_string("manager", "127.0.0.1:8470", "HOST:PORT of the manager.")
    cluster_token.define_flag()
    flags.DEFINE_string(
        "data_address",
        "127.0.0.1:0",
        "HOST:PORT where blocks and activations arrive; this machine only, unless you "
        "say so. Port 0 takes a free one.",
    )
    transport_flags.define()
    flags.DEFINE_string(
        "serve_address", "127.0.0.1:0", "HOST:PORT where gateways attach."
    )
    flags.DEFINE_integer(
        "metrics_port",
        None,
        "Port for Prometheus, at the host of --serve_address; 0 takes a free one, "
        "which the log tells; none: no metrics.",
    )
    flags.DEFINE_float(
        "link_mbit_s",
        None,
        "Emulated rate of its link, Mbit/s each direction; none: as fast as it goes.",
    )
    flags.DEFINE_float(
        "nic_mbit_s",
        None,
        "Rate of this machine's link, Mbit/s each direction, where machines differ: "
        "those with slow links are sent blocks last; none: not known.",
    )
    flags.DEFINE_string(
        "host", "", "Name of this machine, if several workers share its link."
    )
    flags.DEFINE_string("leaf", "", "Name of the switch that it is plugged into.")
    device_flags.define()
    flags.DEFINE_integer(
        "emulate_layer_us",
        0,
        "Microseconds that a layer takes at least, by waiting: emulates accelerators "
        "on a machine that has fewer; 0 does not.",
    )
    flags.DEFINE_string("cache_dir", CACHE_DIR, "Where executables are kept.")
    flags.DEFINE_boolean(
        "ships_executables", True, "Take and give compiled executables with the blocks."
    )
    flags.DEFINE_boolean(
        "can_load_from_disk", True, "The model's files can be read from here."
    )


def main(arguments: list[str]) -> None:
    """Serves until it is told to leave."""
    mains.expect_no_arguments(arguments)
    token = cluster_token.read()
    run_worker(mains.config_from_flags(WorkerConfig, cluster_token=token))


def run() -> None:
    """The command."""
    mains.run(define_flags, main)


if __name__ == "__main__":
    run()
