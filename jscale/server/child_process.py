"""A process of the local cluster: started, watched, and never left behind."""

import dataclasses
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from jscale.core.errors import JscaleError, UnavailableError

POLL_S = 0.02
KILL_AFTER_S = 5.0
LOG_TAIL_BYTES = 4096

FLAG_OF_FIELD = {"model_path": "model", "manager_address": "manager"}
"""Flags are named as the fields of their config, but for these."""


def flags_of(config: Any, token_file: pathlib.Path) -> list[str]:
    """The flags that give a command this config; the secret goes by its file."""
    flags = [f"--cluster_token_file={token_file}"]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is not None and field.name != "cluster_token":
            flags.append(f"--{FLAG_OF_FIELD.get(field.name, field.name)}={value}")
    return flags


class ChildProcess:
    """Runs `python -m module` until it is ended, or whoever started it is.

    Its standard input is a pipe that closes with this process, however that ends;
    `--supervised` has the child end then. Owned by the thread that starts it; the
    methods may be called by any.
    """

    def __init__(
        self,
        name: str,
        module: str,
        flags: Sequence[str],
        log: pathlib.Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts it, with this process's environment unless another is given."""
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, "--supervised", *flags],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=environment,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Asks it to finish what it has and to end (SIGTERM)."""
        self._process.terminate()

    def kill(self) -> None:
        """Ends it at once (SIGKILL)."""
        self._process.kill()

    def reap(self, timeout_s: float = KILL_AFTER_S) -> None:
        """Returns when it has ended; it is killed after the timeout."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def failure(self) -> JscaleError:
        """What it said last, as the error of whoever waits for it."""
        return UnavailableError(
            f"{self.name} ended with exit code {self.exit_code}: {self.last_words()} "
            f"(log: {self.log})"
        )

    def last_words(self) -> str:
        """The last line of its log; a command that fails says why in one."""
        lines = self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        return next(filter(None, reversed(lines.splitlines())), "it said nothing")

    def read_when_ready(self, path: pathlib.Path, timeout_s: float) -> str:
        """What it writes to its ready file.

        Raises:
          UnavailableError: it ended before, or takes longer than the timeout.
        """
        deadline = time.monotonic() + timeout_s
        while not path.exists():
            if self.exit_code is not None:
                raise self.failure()
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"{self.name} is not ready after {timeout_s:.0f} s: {self.log}"
                )
            time.sleep(POLL_S)
        return path.read_text().strip()
