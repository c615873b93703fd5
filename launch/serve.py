"""`jscale-serve`: manager, gateway and workers on this machine, by one command."""

import contextlib
import signal
import types

from absl import flags, logging

from jscale.cluster.config import AUTO, CACHE_DIR, SERVED_PLAN_KINDS
from jscale.launch import (
    device_flags,
    engine_flags,
    mains,
    scaling_flags,
    transport_flags,
)
from jscale.launch.progress import convert_with_progress
from jscale.server.local_cluster import LocalCluster
from jscale.server.local_cluster_config import LocalClusterConfig


def define_flags() -> None:
    """The model, the port, and what `LocalClusterConfig` has beside."""
    flags.DEFINE_string("model", None, "Model to serve: a directory.", required=True)
    flags.DEFINE_integer("num_workers", 1, "Worker processes at the start.")
    flags.DEFINE_string("host", "127.0.0.1", "Host for clients; 0.0.0.0: the world.")
    flags.DEFINE_integer("port", 8480, "Port for clients; 0 takes a free one.")
    flags.DEFINE_float(
        "link_mbit_s", None, "Emulated rate of each link, Mbit/s; none: no limit."
    )
    flags.DEFINE_integer(
        "emulate_layer_us", 0, "Microseconds that a layer takes at least; 0: no least."
    )
    device_flags.define()
    flags.DEFINE_enum("plan_kind", AUTO, SERVED_PLAN_KINDS, "How blocks travel.")
    flags.DEFINE_boolean("executes_while_loading", True, "Serve with some blocks.")
    engine_flags.define()
    transport_flags.define()
    flags.DEFINE_string("cache_dir", CACHE_DIR, "Where converted models are kept.")
    flags.DEFINE_boolean("ships_executables", True, "Send executables with the blocks.")
    flags.DEFINE_float("start_timeout_s", 180.0, "Seconds the first worker may take.")
    flags.DEFINE_float("drain_timeout_s", 30.0, "Seconds requests may go on at end.")
    flags.DEFINE_string("runtime_dir", None, "Where logs stay; none: they are removed.")
    scaling_flags.define()


def main(arguments: list[str]) -> None:
    """Serves until SIGTERM or SIGINT, then lets what runs finish."""
    mains.expect_no_arguments(arguments)
    values = flags.FLAGS
    signal.signal(signal.SIGTERM, _interrupt)
    logging.set_verbosity(logging.WARNING)
    store = convert_with_progress(values.model, values.cache_dir)
    config = mains.config_from_flags(
        LocalClusterConfig, model=str(store), address=f"{values.host}:{values.port}"
    )
    with LocalCluster(config) as cluster:
        print(f"serving {values.model} at {cluster.address} (gRPC jscale.v1)")
        print(f"logs: {cluster.runtime_dir}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):  # The way to end it: no failure.
            cluster.wait()


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    raise KeyboardInterrupt(number, frame)


def run() -> None:
    """The command."""
    mains.run(define_flags, main)


if __name__ == "__main__":
    run()
