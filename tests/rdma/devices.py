"""Which RDMA devices tests use: those that JSCALE_RDMA_DEVICES names, or none."""

import itertools
import os

import pytest

DEVICES = tuple(filter(None, os.environ.get("JSCALE_RDMA_DEVICES", "").split(",")))
IN_LAB = "RDMA_LAB_NODES" in os.environ


def require_devices() -> None:
    """Skips the module that says so first, where there are no devices."""
    if not DEVICES:
        pytest.skip(
            "no RDMA device here: make test-rdma runs these in a virtual machine",
            allow_module_level=True,
        )


def require_lab() -> None:
    """Skips what breaks links that other programs may use, but in the lab."""
    if not IN_LAB:
        pytest.skip("links are taken down in the virtual machine only")


def in_turn():
    """Devices one after the other, for ever: each worker of a test is on another."""
    return itertools.cycle(DEVICES)
