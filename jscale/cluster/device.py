"""The device thread: all that computes, and all that picks what computes next."""

import queue
import threading
import time
from collections.abc import Callable

from jscale.core.units import NS_PER_S
from jscale.pipeline.stage_host import StageHost

KV_QUIET_NS = 2 * NS_PER_S
"""A worker that leaves goes when nobody fetched KV from it for so long, nor has it just
given sequences back: where there is no room for them yet, they wait at the gateway."""

KV_LINGER_NS = 10 * NS_PER_S
"""How long that may take at most; what is not fetched by then is recomputed."""

Action = Callable[[StageHost], None]


class Device:
    """Runs a `StageHost` on a thread of its own; others post actions to it.

    Actions run in the order of their posting and before the next micro-batch. The
    first exception ends the thread and is told once: a worker that cannot compute
    must not seem alive.
    """

    def __init__(
        self, host: StageHost, failed: Callable[[BaseException], None]
    ) -> None:
        self._host = host
        self._failed = failed
        self._inbox: queue.SimpleQueue[Action | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def post(self, action: Action) -> None:
        """Has the action run on the device thread. Never waits."""
        self._inbox.put(action)

    def stop(self) -> None:
        """Ends the thread after what was posted, and waits for it."""
        self._inbox.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def kv_linger_ns(self, began_ns: int, now_ns: int) -> int:
        """How long a worker that leaves since `began_ns` stays at least, 0: no longer.

        Others may yet fetch the KV of the sequences that it gave back.
        """
        wanted_ns = self._host.kv_wanted_ns
        if wanted_ns is None:
            return 0
        return max(0, min(wanted_ns + KV_QUIET_NS, began_ns + KV_LINGER_NS) - now_ns)

    def _run(self) -> None:
        try:
            is_busy = False
            while True:
                try:
                    action = self._inbox.get(not is_busy, self._patience_s())
                except queue.Empty:
                    is_busy = self._host.run_one()
                    continue
                if action is None:
                    return
                action(self._host)
                is_busy = True
        except BaseException as error:  # noqa: BLE001 - told, and the process ends
            self._failed(error)

    def _patience_s(self) -> float | None:
        """How long the host can be left alone if nothing happens; None: for ever."""
        deadline_ns = self._host.deadline_ns
        if deadline_ns is None:
            return None
        return max(0, deadline_ns - time.monotonic_ns()) / NS_PER_S
