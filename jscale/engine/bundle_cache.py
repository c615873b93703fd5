"""Executables that this machine compiled before, kept in a folder."""

import contextlib
import os
import pathlib

from absl import logging

_NUM_BUNDLES_MAX = 32
"""Old ones go: each change of model, settings or jscale makes a new bundle."""


class BundleCache:
    """A folder of bundles, each under the digest of its fingerprint.

    JAX unpickles what is in them, so the folder must be the user's own: one that
    others may write to is not used. A cache that fails is only slow, never an error.
    """

    def __init__(self, directory: str | None) -> None:
        """A cache in `directory`; None: in the user's cache folder."""
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        base = pathlib.Path(directory) if directory else pathlib.Path(home) / "jscale"
        self._folder = base / "executables"

    def find(self, fingerprint: str) -> bytes | None:
        """The bundle for the fingerprint, if there is one to be trusted."""
        path = self._folder / fingerprint
        try:
            for each in (self._folder, path):
                status = each.stat()
                if status.st_uid != os.getuid() or status.st_mode & 0o022:
                    logging.warning("%s can be written by others: not used", each)
                    return None
            return path.read_bytes()
        except OSError:
            return None

    def keep(self, fingerprint: str, bundle: bytes) -> None:
        """Writes the bundle, whole or not at all, and drops the oldest."""
        path = self._folder / fingerprint
        partial = path.with_name(f"{fingerprint}.{os.getpid()}.partial")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(
                os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
            ) as file:
                file.write(bundle)
            partial.replace(path)
            kept = sorted(self._folder.iterdir(), key=lambda each: each.stat().st_mtime)
            for old in kept[:-_NUM_BUNDLES_MAX]:
                with contextlib.suppress(OSError):
                    old.unlink()
        except OSError as error:
            logging.warning("executables cannot be kept in %s: %s", path, error)
