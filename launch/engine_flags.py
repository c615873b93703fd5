"""Flags of how workers run sequences, for every command that starts a manager."""

from absl import flags

from jscale.engine.config import COMPUTE_DTYPES, MOVES_KV


def define() -> None:
    """Defines them, named as the settings of `ManagerConfig`."""
    flags.DEFINE_integer("kv_mib", 2048, "MiB of a worker for KV pages, at most.")
    flags.DEFINE_integer(
        "max_sequences", 16, "Sequences a replica decodes together: one tile of rows."
    )
    flags.DEFINE_integer(
        "step_rows", 128, "Tokens a step computes at most; accelerators take more."
    )
    flags.DEFINE_integer(
        "max_context", None, "Tokens of a sequence; none: the model's, at most 4096."
    )
    flags.DEFINE_enum(
        "compute_dtype",
        "float32",
        COMPUTE_DTYPES,
        "Type of the arithmetic; bfloat16 products are slow on CPUs.",
    )
    flags.DEFINE_enum(
        "moves_kv",
        "auto",
        MOVES_KV,
        "Requests that are handed over take their KV along; auto: where it is sooner.",
    )
