"""Parity tests need torch and transformers, which nothing else here does."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def oracle():
    """The module that asks transformers; skips where it cannot be had."""
    for library in ("torch", "transformers"):
        pytest.importorskip(
            library, reason=f"{library} is not installed: use `make test-parity`"
        )
    import oracle

    return oracle
