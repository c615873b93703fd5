"""Bundles that this machine compiled before, kept on disk."""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import tempfile
import threading
from collections.abc import Iterator
from typing import IO

from absl import logging

_FOLDER = "executables"
_SUFFIX = ".jscalex"
_LOOK_AGAIN_S = 0.1
_DIGEST_SIZE_BYTES = hashlib.sha256().digest_size


class BundleCache:
    """A folder of bundles named by the fingerprint they were compiled for.

    Each file starts with the SHA-256 of the rest. Several processes may use it at once.
    Losing it loses time only: what cannot be read or written is logged and passed by.
    The folder must be the user's own, for JAX unpickles what is in it; it is made so
    that nobody else can write there.
    """

    def __init__(self, directory: str) -> None:
        """A cache in a sub-folder of `directory`, which may start with `~`."""
        self._folder = pathlib.Path(directory).expanduser() / "executables"
        self._is_closing = threading.Event()

    @contextlib.contextmanager
    def alone(self, fingerprint_digest: str) -> Iterator[bool]:
        """Waits for other processes that make the same bundle, and has them wait.

        Who finds nothing after all makes it: of several that start together on one
        machine, one compiles. A process that dies lets go. False: we are closing.
        """
        with contextlib.ExitStack() as stack:
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                path = self._folder / f"{fingerprint_digest}.lock"
                self._lock(stack.enter_context(path.open("w")))
            except OSError as error:
                logging.warning("cached executables: %s; others may compile", error)
            yield not self._is_closing.is_set()

    def close(self) -> None:
        """Ends the wait for others on another thread."""
        self._is_closing.set()

    def find(self, fingerprint_digest: str) -> bytes | None:
        """The bundle for that fingerprint, if it is there and whole."""
        path = self._path(fingerprint_digest)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            logging.warning("cached executables: %s; compiling", error)
            return None
        data = content[_DIGEST_SIZE_BYTES:]
        if hashlib.sha256(data).digest() != content[:_DIGEST_SIZE_BYTES]:
            logging.warning("cached executables: %s is damaged; compiling", path)
            return None
        return data

    def keep(self, fingerprint_digest: str, data: bytes) -> None:
        """Keeps a bundle for processes to come."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                file.write(hashlib.sha256(data).digest())
                file.write(data)
            os.replace(file.name, self._path(fingerprint_digest))
        except OSError as error:
            logging.warning("executables could not be cached: %s", error)

    def _lock(self, file: IO[str]) -> None:
        while not self._is_closing.is_set():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._is_closing.wait(_LOOK_AGAIN_S)
            else:
                return

    def _path(self, fingerprint_digest: str) -> pathlib.Path:
        return self._folder / f"{fingerprint_digest}{_SUFFIX}"
