"""Where a demo shows itself: live in a terminal, as plain lines elsewhere."""

import types

from rich.console import Console
from rich.live import Live

from jscale.server.dashboard import draw
from jscale.server.snapshot import Snapshot, status_line

REFRESH_PER_S = 10


class Screen:
    """Draws snapshots; owned by one thread."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._live: Live | None = None
        self._last_line = ""

    def __enter__(self) -> "Screen":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """A line of its own, for what takes a while before there is a picture."""
        self._console.print(f"[dim]{text} …[/dim]", highlight=False)

    def show(self, snapshot: Snapshot) -> None:
        """The picture now; without a terminal, a line when something happened."""
        if not self._console.is_terminal:
            line = plain_line(snapshot)
            if line != self._last_line:
                print(f"{snapshot.elapsed_s:6.1f} s  {line}", flush=True)
            self._last_line = line
            return
        if self._live is None:
            self._live = Live(
                console=self._console, refresh_per_second=REFRESH_PER_S, screen=False
            )
            self._live.start()
        self._live.update(draw(snapshot))


def plain_line(snapshot: Snapshot) -> str:
    """What happens, and the cluster, in one line."""
    return f"{snapshot.headline}: {status_line(snapshot.status)}"
