"""Any model directory as a block store: converted on first use, found again after."""

import hashlib
import os
import pathlib
from typing import TYPE_CHECKING

from absl import logging

from jscale.store.manifest import FORMAT_VERSION, MANIFEST_FILE, Manifest

if TYPE_CHECKING:
    from jscale.checkpoint.convert import Progress


def resolve(
    path: os.PathLike[str] | str,
    cache_dir: os.PathLike[str] | str,
    *,
    num_blocks: int | None = None,
    dtype: str | None = None,
    progress: "Progress | None" = None,
) -> pathlib.Path:
    """The block store of a model: `path` itself if it is one, else one in the cache.

    A Hugging Face or Orbax directory is converted on first use, and again when one of
    its files changed. Several processes may resolve the same model at once: one
    converts, the others wait. What is not used any longer may be deleted at any time.

    Args:
      path: a block store or a checkpoint.
      cache_dir: where stores are kept; made if needed.
      num_blocks: see `convert`; not for what is a block store already.
      dtype: see `convert`; likewise.
      progress: see `convert`.

    Raises:
      CheckpointError: the model is missing, damaged or not supported.
      ConfigError: there cannot be so many blocks, or there is no such `dtype`.
    """
    directory = pathlib.Path(path)
    if (directory / MANIFEST_FILE).exists():
        Manifest.load(directory)
        return directory
    # A manager or gateway that is given a block store starts without jax.
    from jscale.checkpoint.convert import convert, lay_out, open_checkpoint

    reader = open_checkpoint(directory)
    layouts = lay_out(reader, num_blocks=num_blocks, dtype=dtype)
    key = hashlib.sha256(
        f"{directory.resolve()}\n{reader.fingerprint()}\n{layouts}\n{FORMAT_VERSION}".encode()
    ).hexdigest()
    target = pathlib.Path(cache_dir).expanduser() / f"{reader.model_name}-{key[:16]}"
    if (target / MANIFEST_FILE).exists():
        return target
    logging.info("converting model=%s target=%s", directory, target)
    convert(directory, target, num_blocks=num_blocks, dtype=dtype, progress=progress)
    return target
