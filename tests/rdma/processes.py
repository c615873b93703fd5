"""Processes that speak lines of JSON with the test that started them."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

REAP_S = 20.0


class Child:
    """A module that is run, and killed at the latest when the test ends."""

    def __init__(self, module: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> object:
        """What it says next; the test's timeout bounds the wait."""
        line = self.process.stdout.readline()
        assert line, f"it ended with {self.process.wait(REAP_S)} and said nothing"
        return json.loads(line)

    def say(self, what: object) -> None:
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """As a power cut would: it says nothing more to anybody."""
        self.process.kill()
        self.process.wait(REAP_S)
        for end in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                end.close()


@contextlib.contextmanager
def children() -> Iterator[list[Child]]:
    """A list whose members are killed at the end."""
    made: list[Child] = []
    try:
        yield made
    finally:
        for child in made:
            child.kill()
