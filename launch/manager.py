"""`jscale-manager`: knows the workers, and makes it so that there are enough."""

from absl import flags

from jscale.cluster.config import AUTO, CACHE_DIR, SERVED_PLAN_KINDS, ManagerConfig
from jscale.cluster.manager import run_manager
from jscale.launch import cluster_token, engine_flags, mains, scaling_flags


def define_flags() -> None:
    """One flag for each field of `ManagerConfig`."""
    flags.DEFINE_string("model", None, "Model to serve: a directory.", required=True)
    cluster_token.define_flag()
    flags.DEFINE_string(
        "listen_address",
        "127.0.0.1:8470",
        "HOST:PORT for workers and gateways. This machine only, unless you say so.",
    )
    flags.DEFINE_integer(
        "num_workers", None, "Workers wanted; none: as many as attach by themselves."
    )
    flags.DEFINE_string("ready_file", None, "Written with the address once it listens.")
    flags.DEFINE_string("cache_dir", CACHE_DIR, "Where converted models are kept.")
    flags.DEFINE_enum(
        "plan_kind",
        AUTO,
        SERVED_PLAN_KINDS,
        "How blocks travel between workers; auto: by what is known of their links.",
    )
    flags.DEFINE_boolean(
        "executes_while_loading",
        True,
        "Workers serve with the blocks they have; off: with the whole model only.",
    )
    flags.DEFINE_integer(
        "chunk_size_bytes", None, "What travels at once; none: 1/256 of the model."
    )
    flags.DEFINE_integer(
        "page_tokens", 64, "Tokens of a KV page; fewer waste less, more are faster."
    )
    engine_flags.define()
    scaling_flags.define()


def main(arguments: list[str]) -> None:
    """Serves until SIGTERM."""
    mains.expect_no_arguments(arguments)
    token = cluster_token.read()
    run_manager(mains.config_from_flags(ManagerConfig, cluster_token=token))


def run() -> None:
    """The command."""
    mains.run(define_flags, main)


if __name__ == "__main__":
    run()
