"""Which RDMA devices tests use: those that JSCALE_RDMA_DEVICES names, or none."""

import itertools
import os
import pathlib

import pytest

DEVICES = tuple(filter(None, os.environ.get("JSCALE_RDMA_DEVICES", "").split(",")))
IN_LAB = "RDMA_LAB_NODES" in os.environ

OTHER_NAMES = {
    "sent_pkts": "counters/port_xmit_packets",
    "rcvd_rnr_err": "hw_counters/rnr_nak_retry_err",
}

OTHER_NAMES = {
    "sent_pkts": "counters/port_xmit_packets",
    "rcvd_rnr_err": "hw_counters/rnr_nak_retry_err",
}


def require_devices() -> None:
    """Skips the module that says so first, where there are no devices."""
    if not DEVICES:
        pytest.skip(
            "no RDMA device here: make test-rdma runs these in a virtual machine",
            allow_module_level=True,
        )


def in_turn():
    """Devices one after the other, for ever: each worker of a test is on another."""
    return itertools.cycle(DEVICES)


def device_counters() -> dict[str, int]:
    """Packets that each device has sent, by the kernel's count."""
    return {device: _count(device, "sent_pkts") for device in DEVICES}


def device_errors(name: str) -> int:
    """What all devices together have counted so far: `rcvd_rnr_err`, say."""
    return sum(_count(device, name) for device in DEVICES)


def _count(device: str, name: str) -> int:
    """A counter as soft-RoCE calls it, or as others do."""
    port = pathlib.Path("/sys/class/infiniband", device, "ports/1")
    for path in (port / "hw_counters" / name, port / OTHER_NAMES[name]):
        if path.exists():
            return int(path.read_text())
    pytest.skip(f"{device} does not count {name}")
