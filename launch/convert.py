"""`jscale-convert SRC DST`: a checkpoint becomes a block store."""

from absl import flags, logging

from jscale.core.errors import ConfigError
from jscale.core.layout import DTYPE_SIZE_BYTES
from jscale.core.units import format_size
from jscale.launch import mains
from jscale.launch.progress import convert_to


def define_flags() -> None:
    """What is not given by the two paths."""
    flags.DEFINE_integer(
        "num_blocks", None, "Blocks to cut the model into; none: as suits its size."
    )
    flags.DEFINE_enum(
        "dtype", None, sorted(DTYPE_SIZE_BYTES), "Type of the weights; none: as it is."
    )


def main(arguments: list[str]) -> None:
    """Converts; an interrupted conversion is taken up where it was."""
    if len(arguments) != 2:
        raise ConfigError(
            f"{len(arguments)} paths given: jscale-convert takes SRC, a Hugging Face "
            f"or Orbax directory, and DST, where the block store goes"
        )
    logging.set_verbosity(logging.WARNING)
    source, target = arguments
    manifest = convert_to(
        source, target, num_blocks=flags.FLAGS.num_blocks, dtype=flags.FLAGS.dtype
    )
    print(
        f"{manifest.model_name}: {manifest.num_blocks} blocks, "
        f"{format_size(manifest.size_bytes)} of {manifest.dtype}, in {target}"
    )


def run() -> None:
    """The command."""
    mains.run(define_flags, main)


if __name__ == "__main__":
    run()
