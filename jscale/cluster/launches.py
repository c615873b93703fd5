"""Worker processes that were asked for and have not attached yet."""

from collections.abc import Iterable

from jscale.core.ids import WorkerId

LAUNCH_TIMEOUT_NS = 60_000_000_000
"""A worker process that has not attached by then is given up."""

NUM_FAILURES_MAX = 3
"""After so many processes in a row that ended before they attached, the next would most
likely end too: they are started one at a time, after a pause, until one attaches or
somebody asks for a number of workers again."""

PAUSE_NS = 5_000_000_000
"""The first pause; each is twice as long as the one before."""

PAUSE_NS_MAX = 60_000_000_000
"""No pause is longer."""


class Launches:
    """Owns the names of workers and who is on the way. Part of a `ManagerState`."""

    def __init__(self) -> None:
        self._pending: dict[WorkerId, int] = {}
        self._arrived: set[WorkerId] = set()
        self._has_launcher = False
        self._num_failures = 0
        self._resume_ns = 0
        self._next = 0

    @property
    def num_pending(self) -> int:
        """Processes on the way."""
        return len(self._pending)

    @property
    def is_possible(self) -> bool:
        """Whether there is somebody who starts processes."""
        return self._has_launcher

    def attached(
        self, running: Iterable[WorkerId], ended: Iterable[WorkerId], now_ns: int
    ) -> None:
        """There is a launcher; those it runs already will attach by themselves."""
        self._has_launcher = True
        for worker in ended:
            self._note_name(worker)
        for worker in running:
            self._note_name(worker)
            self._pending[worker] = now_ns + LAUNCH_TIMEOUT_NS

    def detached(self) -> None:
        """The launcher is gone, and with it what it was starting."""
        self._has_launcher = False
        self._pending.clear()

    def start(self, num_missing: int, now_ns: int) -> list[WorkerId]:
        """Names for the processes to start now, so that none is missing."""
        if not self._has_launcher or now_ns < self._resume_ns:
            return []
        if self._num_failures >= NUM_FAILURES_MAX:
            num_missing = min(num_missing, 1)
        started = []
        for _ in range(num_missing - len(self._pending)):
            worker = WorkerId(f"w{self._next}")
            self._next += 1
            self._pending[worker] = now_ns + LAUNCH_TIMEOUT_NS
            started.append(worker)
        return started

    def arrived(self, worker: WorkerId) -> bool:
        """A worker has attached; whether it came by itself, as one more."""
        self._note_name(worker)
        was_pending = self._pending.pop(worker, None) is not None
        if was_pending:
            self.forgive()
        is_known = was_pending or worker in self._arrived
        self._arrived.add(worker)
        return not is_known

    def let_go(self, worker: WorkerId) -> None:
        """A worker leaves: if it ever comes back, it comes by itself."""
        self._arrived.discard(worker)

    def failed(self, worker: WorkerId, exit_code: int, now_ns: int) -> str:
        """A process ended; if it was on the way, what people should know."""
        if self._pending.pop(worker, None) is None or exit_code == 0:
            return ""  # An earlier manager let it go, say.
        self._note_failure(now_ns)
        return f"{worker} ended at start with exit code {exit_code}: see its log"

    def give_up_late(self, now_ns: int) -> str:
        """Forgets those that are too late; if any, what people should know."""
        late = [worker for worker, end_ns in self._pending.items() if now_ns >= end_ns]
        for worker in late:
            del self._pending[worker]
            self._note_failure(now_ns)
        return f"{', '.join(late)} never attached: see its log" if late else ""

    def forgive(self) -> None:
        """Somebody asked for workers: try again."""
        self._num_failures = 0
        self._resume_ns = 0

    def _note_failure(self, now_ns: int) -> None:
        self._num_failures += 1
        num_pauses = self._num_failures - NUM_FAILURES_MAX
        if num_pauses >= 0:
            pause_ns = min(PAUSE_NS << min(num_pauses, 8), PAUSE_NS_MAX)
            self._resume_ns = now_ns + pause_ns

    def _note_name(self, worker: WorkerId) -> None:
        """Never gives out a name that is in use, also after a restart."""
        number = worker.removeprefix("w")
        if number.isdigit():
            self._next = max(self._next, int(number) + 1)
