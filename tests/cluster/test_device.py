import threading
import time

from jscale.cluster.device import Device


class Host:
    """One that wants to run once more at a deadline, though nothing happens."""

    def __init__(self) -> None:
        self.deadline_ns: int | None = None
        self.kv_wanted_ns: int | None = 5
        self.has_run = threading.Event()

    def wait(self) -> None:
        self.deadline_ns = time.monotonic_ns() + 1000
        self.has_run.clear()

    def run_one(self) -> bool:
        if self.deadline_ns is not None and self.deadline_ns <= time.monotonic_ns():
            self.deadline_ns = None
            self.has_run.set()
        return False


def test_a_deadline_wakes_a_device_that_nothing_happens_to() -> None:
    host = Host()
    device = Device(host, failed=lambda error: None)  # type: ignore[arg-type]
    device.start()
    device.post(lambda host: host.wait())  # type: ignore[attr-defined]
    assert host.has_run.wait(timeout=60)
    assert device.kv_wanted_ns == 5
    device.stop()
