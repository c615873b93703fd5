"""The secret that the processes of a cluster show each other."""

import pathlib

from absl import flags

from jscale.core.errors import ConfigError

LENGTH_MIN = 16


def define_flag() -> None:
    """The flag that `cluster_token` reads."""
    flags.DEFINE_string(
        "cluster_token_file",
        None,
        "File with the secret that every process of the cluster shows; any text of 16 "
        "characters or more, readable by you only.",
        required=True,
    )


def read() -> str:
    """The secret in `--cluster_token_file`.

    Raises:
      ConfigError: it cannot be read, or is too short to be one.
    """
    path = pathlib.Path(flags.FLAGS.cluster_token_file)
    try:
        token = path.read_text().strip()
    except OSError as error:
        raise ConfigError(f"--cluster_token_file={path}: {error.strerror}") from error
    if len(token) < LENGTH_MIN:
        raise ConfigError(
            f"--cluster_token_file={path}: {len(token)} characters are too few to be a "
            f"secret; make one with: openssl rand -hex 16"
        )
    return token
