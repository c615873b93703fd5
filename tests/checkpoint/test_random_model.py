import jax.numpy as jnp
import numpy as np
import pytest

from jscale.checkpoint.random_model import config_of_size, write_random_model
from jscale.checkpoint.testing import BUNDLED_DIRECTORY
from jscale.core.units import GIB, MIB
from jscale.models.llama_family import LLAMA
from jscale.models.testing import TINY_CONFIG
from jscale.store.block_store import BlockStore
from jscale.store.manifest import Manifest


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_a_store_of_finite_weights(tmp_path, dtype):
    manifest = write_random_model(tmp_path, TINY_CONFIG, dtype=dtype, num_blocks=2)
    assert Manifest.load(tmp_path) == manifest
    store = BlockStore(manifest)
    for index in range(manifest.num_blocks):
        store.load(index, tmp_path)
        leaves = store.publish(index)
        assert all(jnp.isfinite(leaf).all() for leaf in leaves)
        names = [each.name for each in manifest.blocks[index].layout.tensors]
        for name, leaf in zip(names, leaves, strict=True):
            wide = np.asarray(leaf, np.float32)
            assert (wide == 1).all() if name.endswith("scale") else wide.std() > 0.05
        del leaves, leaf, wide
    store.close()


def test_its_seed_decides_its_bytes(tmp_path):
    first = write_random_model(tmp_path / "a", TINY_CONFIG, seed=1)
    again = write_random_model(tmp_path / "b", TINY_CONFIG, seed=1)
    other = write_random_model(tmp_path / "c", TINY_CONFIG, seed=2)
    assert first == again
    assert first.blocks != other.blocks


def test_it_may_have_a_tokenizer(tmp_path):
    tokenizer = BUNDLED_DIRECTORY / "tokenizer.json"
    manifest = write_random_model(tmp_path, TINY_CONFIG, tokenizer_file=tokenizer)
    copy = tmp_path / manifest.tokenizer_file
    assert copy.read_bytes() == tokenizer.read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("size_bytes", "num_layers"), [(2 * MIB, 4), (64 * MIB, 16), (13 * GIB, 32)]
)
def test_a_config_comes_out_at_its_size(size_bytes, num_layers, dtype):
    config = config_of_size(size_bytes, num_layers=num_layers, dtype=dtype)
    assert config.num_layers == num_layers
    sizes = LLAMA.part_sizes(config, dtype)
    actual = sizes.embed_bytes + sizes.head_bytes + num_layers * sizes.layer_bytes
    assert abs(actual - size_bytes) < 0.015 * size_bytes
