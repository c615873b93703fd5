import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from jscale.checkpoint.convert import convert
from jscale.checkpoint.testing import hf_config
from jscale.core.errors import CheckpointError
from jscale.core.partition import Partition
from jscale.models.llama_family import LLAMA
from jscale.models.testing import TINY_CONFIG, leaves_of
from jscale.store.block_store import BlockStore

TIED_CONFIG = dataclasses.replace(TINY_CONFIG, tie_embeddings=True)


def whole_tree(config, tensors, dtype):
    """The pure dict of the whole model's state."""
    (block,) = Partition.of_layers((config.num_layers,)).blocks
    names = LLAMA.abstract_leaves(config, block.kind, dtype)
    leaves = dict(zip(names, leaves_of(config, block, tensors, dtype), strict=True))
    tree = {}
    for path in LLAMA.abstract_model(config, dtype):
        branch = tree
        for key in path[:-1]:
            branch = branch.setdefault(key, {})
        branch[path[-1]] = leaves[".".join(path)]
    return tree


def save(path, tree):
    from orbax import checkpoint

    with checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)


def write_config(directory, config):
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(hf_config(config)))


def assert_holds(directory, config, tensors, dtype):
    manifest = convert(directory, directory.parent / "store", num_blocks=3)
    assert manifest.dtype == dtype
    store = BlockStore(manifest)
    for block in manifest.partition.blocks:
        store.load(block.index, directory.parent / "store")
        expected = leaves_of(config, block, tensors, dtype)
        for leaf, values in zip(store.publish(block.index), expected, strict=True):
            np.testing.assert_array_equal(
                np.asarray(leaf, np.float32), np.asarray(values, np.float32)
            )
        del leaf
    store.close()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("config", [TINY_CONFIG, TIED_CONFIG], ids=["untied", "tied"])
def test_a_saved_flax_model_becomes_blocks(tmp_path, tensors, config, dtype):
    directory = tmp_path / "model"
    write_config(directory, config)
    save(directory / "params", whole_tree(config, tensors, dtype))
    assert_holds(directory, config, tensors, dtype)


@pytest.mark.parametrize("folder", ["", "params", "7/default"])
def test_the_checkpoint_may_lie_where_orbax_puts_it(tmp_path, tensors, folder):
    directory = tmp_path / "a model"
    save(directory / folder, whole_tree(TINY_CONFIG, tensors, "float32"))
    write_config(directory, TINY_CONFIG)
    assert_holds(directory, TINY_CONFIG, tensors, "float32")


def test_an_nnx_state_is_read_like_its_pure_dict(tmp_path):
    from flax import nnx

    from jscale.core.partition import BlockKind
    from jscale.models.llama import LlamaBlock

    kind = BlockKind(TINY_CONFIG.num_layers, has_embed=True, has_head=True)
    model = LlamaBlock(TINY_CONFIG, kind, nnx.Rngs(0))
    directory = tmp_path / "model"
    write_config(directory, TINY_CONFIG)
    save(directory / "params", nnx.split(model)[1])
    manifest = convert(directory, tmp_path / "store", num_blocks=1)
    store = BlockStore(manifest)
    store.load(0, tmp_path / "store")
    state = nnx.to_pure_dict(nnx.split(model)[1])
    (tensor, *_) = manifest.blocks[0].layout.tensors
    assert tensor.name == "embed.table"
    published = np.asarray(store.publish(0)[0])
    np.testing.assert_array_equal(published, state["embed"]["table"])
    del published
    store.close()


@pytest.mark.parametrize("use_zarr3", [False, True])
@pytest.mark.parametrize("use_ocdbt", [False, True])
def test_every_format_of_orbax_is_read(tmp_path, tensors, use_ocdbt, use_zarr3):
    from orbax import checkpoint

    tree = whole_tree(TINY_CONFIG, tensors, "float32")
    directory = tmp_path / "model"
    write_config(directory, TINY_CONFIG)
    handler = checkpoint.PyTreeCheckpointHandler(
        use_ocdbt=use_ocdbt, use_zarr3=use_zarr3
    )
    with checkpoint.Checkpointer(handler) as checkpointer:
        checkpointer.save(directory / "params", args=checkpoint.args.PyTreeSave(tree))
    assert_holds(directory, TINY_CONFIG, tensors, "float32")


def test_a_checkpoint_without_its_config_is_a_clear_error(tmp_path, tensors):
    save(tmp_path / "params", whole_tree(TINY_CONFIG, tensors, "float32"))
    with pytest.raises(CheckpointError, match=r"config.json: No such file"):
        convert(tmp_path, tmp_path / "store")


def test_several_checkpoints_are_a_clear_error(tmp_path):
    write_config(tmp_path / "model", TINY_CONFIG)
    for step in ("1", "2"):
        save(tmp_path / "model" / step, {"x": jnp.ones(3)})
    with pytest.raises(CheckpointError, match="2 Orbax checkpoints"):
        convert(tmp_path / "model", tmp_path / "store")


def test_another_models_tree_is_a_clear_error(tmp_path):
    write_config(tmp_path / "model", TINY_CONFIG)
    save(tmp_path / "model" / "params", {"x": jnp.ones(3)})
    with pytest.raises(CheckpointError, match=r"there is no leaf embed\.table"):
        convert(tmp_path / "model", tmp_path / "store")


def test_too_few_layers_are_a_clear_error(tmp_path, tensors):
    config = dataclasses.replace(TINY_CONFIG, num_layers=3)
    write_config(tmp_path / "model", TINY_CONFIG)
    save(tmp_path / "model" / "params", whole_tree(config, tensors, "float32"))
    with pytest.raises(CheckpointError, match=r"\[3:4\] has shape \(0, "):
        convert(tmp_path / "model", tmp_path / "store")


def test_integers_are_refused(tmp_path):
    write_config(tmp_path / "model", TINY_CONFIG)
    save(tmp_path / "model" / "params", {"embed": {"table": jnp.ones(3, jnp.int8)}})
    with pytest.raises(CheckpointError, match="element type int8, supported are"):
        convert(tmp_path / "model", tmp_path / "store")


def test_damaged_data_is_a_clear_error(tmp_path, tensors):
    write_config(tmp_path / "model", TINY_CONFIG)
    params = tmp_path / "model" / "params"
    save(params, whole_tree(TINY_CONFIG, tensors, "float32"))
    for path in params.rglob("d/*"):
        path.write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"read .*is not valid for value of size 0"
    ):
        convert(tmp_path / "model", tmp_path / "store")
