"""Process start is part of the product: nothing heavy comes along."""

import subprocess
import sys

import pytest

import jscale


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("jscale", {"jax", "grpc", "numpy", "flax", "rich"}),
        ("jscale.server.client", {"jax", "flax", "numpy"}),
        ("jscale.server.gateway_process", {"jax", "flax"}),
        ("jscale.server.local_cluster", {"jax", "flax"}),
        ("jscale.cluster.manager", {"jax", "flax"}),
    ],
)
def test_importing_brings_nothing_heavy(module, heavy):
    script = f"import sys, {module}; print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert heavy.isdisjoint(ended.stdout.split())


def test_every_public_name_can_be_had():
    for name in jscale.__all__:
        assert getattr(jscale, name) is not None
    assert set(dir(jscale)) == set(jscale.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        jscale.simulat  # noqa: B018
