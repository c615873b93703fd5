"""Transports over RDMA devices."""

import pytest

from tests.transport.conftest import lying_checksum, opened_and_closed

__all__ = ["lying_checksum"]


@pytest.fixture
def net():
    """Transports on different devices, one for each worker of a test."""
    yield from opened_and_closed("rdma")
