import threading
import time

from jscale.cluster.device import KV_LINGER_NS, KV_QUIET_NS, Device


class Host:
    """One that wants to run once more at a deadline, though nothing happens."""

    def __init__(self) -> None:
        self.deadline_ns: int | None = None
        self.kv_wanted_ns: int | None = None
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
    device.stop()


def test_a_worker_that_leaves_stays_while_its_kv_is_fetched_but_not_for_ever() -> None:
    host = Host()
    device = Device(host, failed=lambda error: None)  # type: ignore[arg-type]
    assert device.kv_linger_ns(began_ns=0, now_ns=0) == 0, "nobody ever wanted any"
    host.kv_wanted_ns = 100
    assert device.kv_linger_ns(began_ns=150, now_ns=150) == KV_QUIET_NS - 50
    now_ns = 100 + KV_QUIET_NS
    assert device.kv_linger_ns(began_ns=150, now_ns=now_ns) == 0
    host.kv_wanted_ns = now_ns
    assert device.kv_linger_ns(began_ns=150, now_ns=now_ns) == KV_QUIET_NS
    host.kv_wanted_ns = now_ns = 149 + KV_LINGER_NS
    assert device.kv_linger_ns(began_ns=150, now_ns=now_ns) == 1
    assert device.kv_linger_ns(began_ns=150, now_ns=now_ns + 1) == 0
