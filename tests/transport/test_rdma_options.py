import pytest

from jscale.core.errors import ConfigError
from jscale.transport.rdma_options import RdmaOptions


def test_no_option_has_to_be_given():
    assert RdmaOptions().devices == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"devices": ("mlx5_0", "")}, "name each once"),
        ({"devices": ("mlx5_0", "mlx5_0")}, "'mlx5_0,mlx5_0'"),
        ({"gid_index": -1}, "gid_index is -1: give 0 to 255"),
        ({"gid_index": 256}, "gid_index is 256"),
        ({"retry_s": 0.0}, "retry_s is 0.0"),
        ({"retry_s": 61.0}, "at most 60"),
        ({"retry_s": float("nan")}, "retry_s is nan"),
        ({"depth": 0}, "depth is 0: give 1 to 4096"),
    ],
)
def test_an_option_that_cannot_be_is_refused_with_what_to_give(given, said):
    with pytest.raises(ConfigError, match=said):
        RdmaOptions(**given)


def test_the_outermost_options_are_taken():
    RdmaOptions(devices=("a", "b"), gid_index=0, retry_s=60.0, depth=4096)
