"""A progress bar for whatever converts a model."""

import pathlib
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from jscale.checkpoint.cache import resolve
from jscale.store.manifest import Manifest

if TYPE_CHECKING:
    from jscale.checkpoint.convert import ConversionProgress


class ConversionBar:
    """Shows how far a conversion is, on stderr; nothing if there is none to do."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "ConversionBar":
        return self

    def __exit__(self, *error: object) -> None:
        if self._task is not None:
            self._bar.stop()

    def __call__(self, done: "ConversionProgress") -> None:
        """Takes what `convert` says."""
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task(self._name, total=done.total_bytes)
        block = f"{self._name}: block {done.block + 1} of {done.num_blocks}"
        self._bar.update(self._task, completed=done.done_bytes, description=block)


def convert_with_progress(model: str, cache_dir: str) -> pathlib.Path:
    """The block store of a model, converted into the cache on first use.

    Raises:
      CheckpointError: the model cannot be read.
    """
    with ConversionBar("converting") as bar:
        return resolve(model, cache_dir, progress=bar)


def convert_to(
    source: str, target: str, *, num_blocks: int | None, dtype: str | None
) -> Manifest:
    """Converts into a given folder.

    Raises:
      CheckpointError: the model cannot be read.
      ConfigError: a setting does not fit the model.
    """
    # What converts needs jax, which takes a second to import.
    from jscale.checkpoint.convert import convert

    with ConversionBar("converting") as bar:
        return convert(source, target, num_blocks=num_blocks, dtype=dtype, progress=bar)
