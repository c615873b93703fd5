"""`jscale-gateway`: takes requests and streams tokens back."""

from absl import flags

from jscale.cluster.config import CACHE_DIR
from jscale.launch import cluster_token, mains
from jscale.server.gateway_config import GatewayConfig
from jscale.server.gateway_process import run_gateway


def define_flags() -> None:
    """One flag for each field of `GatewayConfig`."""
    flags.DEFINE_string(
        "model", None, "Model that the manager serves: a directory.", required=True
    )
    flags.DEFINE_string("manager", "127.0.0.1:8470", "HOST:PORT of the manager.")
    cluster_token.define_flag()
    flags.DEFINE_string(
        "listen_address",
        "127.0.0.1:8480",
        "HOST:PORT for clients. This machine only, unless you say so.",
    )
    flags.DEFINE_string("ready_file", None, "Written with the address once it listens.")
    flags.DEFINE_string("cache_dir", CACHE_DIR, "Where converted models are kept.")
    flags.DEFINE_integer(
        "max_context", None, "Tokens of a sequence; none: the model's, at most 4096."
    )
    flags.DEFINE_integer(
        "max_queued",
        1024,
        "Requests that wait for a replica; more are refused: they would wait too long.",
    )
    flags.DEFINE_float(
        "unavailable_after_s",
        60.0,
        "Seconds without any replica after which requests fail: a worker starts in 10.",
    )
    flags.DEFINE_float(
        "drain_timeout_s",
        30.0,
        "Seconds that requests may go on after SIGTERM: what supervisors mostly allow.",
    )


def main(arguments: list[str]) -> None:
    """Serves until SIGTERM."""
    mains.expect_no_arguments(arguments)
    token = cluster_token.read()
    run_gateway(mains.config_from_flags(GatewayConfig, cluster_token=token))


def run() -> None:
    """The command."""
    mains.run(define_flags, main)


if __name__ == "__main__":
    run()
