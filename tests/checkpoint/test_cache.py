import os

import pytest

from jscale.checkpoint.cache import resolve
from jscale.checkpoint.convert import convert
from jscale.checkpoint.testing import write_hugging_face
from jscale.core.errors import CheckpointError
from jscale.models.testing import TINY_CONFIG
from jscale.store.manifest import Manifest


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "cache"


def test_a_block_store_is_used_as_it_is(hf_directory, tmp_path, cache_dir):
    convert(hf_directory, tmp_path / "store")
    assert resolve(tmp_path / "store", cache_dir) == tmp_path / "store"
    assert not cache_dir.exists()


def test_a_checkpoint_is_converted_on_first_use_only(hf_directory, cache_dir):
    updates = []
    path = resolve(hf_directory, cache_dir, progress=updates.append)
    assert path.parent == cache_dir
    assert path.name.startswith("tiny-")
    assert Manifest.load(path).model_name == "tiny"
    assert updates
    updates.clear()
    assert resolve(hf_directory, cache_dir, progress=updates.append) == path
    assert not updates


def test_a_changed_checkpoint_is_converted_again(hf_directory, cache_dir):
    before = resolve(hf_directory, cache_dir)
    os.utime(hf_directory / "config.json", ns=(1, 1))
    after = resolve(hf_directory, cache_dir)
    assert after != before
    assert Manifest.load(after).blocks == Manifest.load(before).blocks


def test_each_setting_has_its_own_store(hf_directory, cache_dir):
    stores = {
        resolve(hf_directory, cache_dir),
        resolve(hf_directory, cache_dir, num_blocks=2),
        resolve(hf_directory, cache_dir, dtype="bfloat16"),
    }
    assert len(stores) == 3


def test_settings_that_change_nothing_share_a_store(hf_directory, cache_dir):
    by_default = resolve(hf_directory, cache_dir)
    assert resolve(hf_directory, cache_dir, num_blocks=4, dtype="float32") == by_default


def test_models_of_one_name_are_told_apart(tmp_path, tensors, cache_dir):
    stores = set()
    for parent in ("a", "b"):
        directory = tmp_path / parent / "tiny"
        write_hugging_face(directory, TINY_CONFIG, tensors)
        stores.add(resolve(directory, cache_dir))
    assert len(stores) == 2


def test_a_link_to_a_checkpoint_is_the_checkpoint(hf_directory, tmp_path, cache_dir):
    (tmp_path / "link").symlink_to(hf_directory)
    assert resolve(tmp_path / "link", cache_dir) == resolve(hf_directory, cache_dir)


def test_a_broken_manifest_is_a_clear_error(tmp_path, cache_dir):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not a manifest"):
        resolve(tmp_path, cache_dir)


def test_a_broken_checkpoint_leaves_no_trace(hf_directory, cache_dir):
    (hf_directory / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        resolve(hf_directory, cache_dir)
    assert not cache_dir.exists()
