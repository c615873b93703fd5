import dataclasses
import json
import pathlib
import tracemalloc

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jscale.checkpoint.convert import JOURNAL_FILE, convert, open_checkpoint
from jscale.checkpoint.testing import BUNDLED_DIRECTORY, write_hugging_face
from jscale.core.errors import CheckpointError, ConfigError
from jscale.models.llama_family import LLAMA
from jscale.models.testing import TINY_CONFIG, leaves_of, random_tensors
from jscale.store.block_store import BlockStore
from jscale.store.manifest import MANIFEST_FILE, Manifest


class StoppedError(Exception):
    pass


def interrupt_in_block(block):
    def progress(update):
        if update.block == block:
            raise StoppedError

    return progress


def assert_holds(directory, config, tensors, dtype="float32"):
    """The store's blocks, loaded and published, are what the model takes."""
    manifest = Manifest.load(directory)
    store = BlockStore(manifest)
    for block in manifest.partition.blocks:
        store.load(block.index, directory)
        expected = leaves_of(config, block, tensors, dtype)
        for leaf, values in zip(store.publish(block.index), expected, strict=True):
            assert leaf.dtype == values.dtype
            np.testing.assert_array_equal(
                np.asarray(leaf, np.float32), np.asarray(values, np.float32)
            )
        del leaf
    store.close()


def stamps(directory):
    return {path.name: path.stat().st_mtime_ns for path in directory.glob("*.bin")}


def test_shards_become_blocks(hf_directory, tmp_path, tensors):
    manifest = convert(hf_directory, tmp_path / "store")
    assert manifest.partition.num_blocks == 4
    assert manifest.model_name == "tiny"
    assert LLAMA.config_from_dict(manifest.config).num_layers == TINY_CONFIG.num_layers
    assert Manifest.load(tmp_path / "store") == manifest
    assert_holds(tmp_path / "store", TINY_CONFIG, tensors)


@pytest.mark.parametrize("num_blocks", [1, 2, 3, 4])
def test_any_cut_holds_the_same_model(hf_directory, tmp_path, tensors, num_blocks):
    manifest = convert(hf_directory, tmp_path / "store", num_blocks=num_blocks)
    assert manifest.num_blocks == num_blocks
    assert_holds(tmp_path / "store", TINY_CONFIG, tensors)


def test_a_tied_head_is_a_copy_in_the_last_block(tmp_path, tensors):
    config = dataclasses.replace(TINY_CONFIG, tie_embeddings=True)
    tied = {name: each for name, each in tensors.items() if name != "lm_head.weight"}
    write_hugging_face(tmp_path / "tied", config, tied)
    convert(tmp_path / "tied", tmp_path / "store")
    assert_holds(tmp_path / "store", config, tied)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_element_type_can_be_chosen(hf_directory, tmp_path, tensors, dtype):
    manifest = convert(hf_directory, tmp_path / "store", dtype=dtype)
    assert manifest.dtype == dtype
    assert_holds(tmp_path / "store", TINY_CONFIG, tensors, dtype)


def test_the_element_type_is_that_of_the_checkpoint(tmp_path, tensors):
    write_hugging_face(
        tmp_path / "narrow", TINY_CONFIG, tensors, dtype=ml_dtypes.bfloat16
    )
    manifest = convert(tmp_path / "narrow", tmp_path / "store")
    assert manifest.dtype == "bfloat16"
    narrow = {n: jnp.asarray(each, "bfloat16") for n, each in tensors.items()}
    assert_holds(tmp_path / "store", TINY_CONFIG, narrow, "bfloat16")


def test_the_tokenizer_comes_along(hf_directory, tmp_path):
    manifest = convert(hf_directory, tmp_path / "store")
    copy = tmp_path / "store" / manifest.tokenizer_file
    assert copy.read_bytes() == (hf_directory / "tokenizer.json").read_bytes()


def test_a_model_without_tokenizer_is_converted(hf_directory, tmp_path):
    (hf_directory / "tokenizer.json").unlink()
    assert convert(hf_directory, tmp_path / "store").tokenizer_file is None


def test_progress_grows_to_all_bytes(hf_directory, tmp_path):
    updates = []
    manifest = convert(hf_directory, tmp_path / "store", progress=updates.append)
    done = [update.done_bytes for update in updates]
    assert done == sorted(done)
    assert done[-1] == updates[-1].total_bytes == manifest.size_bytes
    assert [*{update.block for update in updates}] == [0, 1, 2, 3]


def test_an_interrupted_conversion_is_no_store(hf_directory, tmp_path):
    with pytest.raises(StoppedError):
        convert(hf_directory, tmp_path / "store", progress=interrupt_in_block(2))
    assert not (tmp_path / "store" / MANIFEST_FILE).exists()
    assert sorted(stamps(tmp_path / "store")) == ["block-00000.bin", "block-00001.bin"]


def test_a_resumed_conversion_keeps_finished_blocks(hf_directory, tmp_path, tensors):
    store = tmp_path / "store"
    with pytest.raises(StoppedError):
        convert(hf_directory, store, progress=interrupt_in_block(2))
    before = stamps(store)
    updates = []
    manifest = convert(hf_directory, store, progress=updates.append)
    assert updates[-1].num_kept == 2
    assert {name: stamps(store)[name] for name in before} == before
    assert manifest == convert(hf_directory, tmp_path / "other")
    assert not (store / JOURNAL_FILE).exists()
    assert_holds(store, TINY_CONFIG, tensors)


def test_a_damaged_block_is_not_kept(hf_directory, tmp_path, tensors):
    store = tmp_path / "store"
    with pytest.raises(StoppedError):
        convert(hf_directory, store, progress=interrupt_in_block(2))
    damaged = bytearray((store / "block-00001.bin").read_bytes())
    damaged[5] ^= 1
    (store / "block-00001.bin").write_bytes(damaged)
    updates = []
    convert(hf_directory, store, progress=updates.append)
    assert updates[-1].num_kept == 1
    assert_holds(store, TINY_CONFIG, tensors)


def test_converting_again_repairs_a_store(hf_directory, tmp_path, tensors):
    store = tmp_path / "store"
    manifest = convert(hf_directory, store)
    before = stamps(store)
    (store / "block-00003.bin").write_bytes(b"short")
    assert convert(hf_directory, store) == manifest
    after = stamps(store)
    assert [name for name in before if before[name] != after[name]] == [
        "block-00003.bin"
    ]
    assert_holds(store, TINY_CONFIG, tensors)


@pytest.mark.parametrize("settings", [{"num_blocks": 2}, {"dtype": "bfloat16"}])
def test_other_settings_keep_no_block(hf_directory, tmp_path, settings):
    convert(hf_directory, tmp_path / "store")
    updates = []
    manifest = convert(
        hf_directory, tmp_path / "store", progress=updates.append, **settings
    )
    assert updates[-1].num_kept == 0
    files = {path.name for path in (tmp_path / "store").glob("block-*")}
    assert files == {entry.file for entry in manifest.blocks}


def test_an_interrupted_change_of_settings_leaves_no_manifest(hf_directory, tmp_path):
    store = tmp_path / "store"
    convert(hf_directory, store)
    with pytest.raises(StoppedError):
        convert(hf_directory, store, num_blocks=2, progress=interrupt_in_block(1))
    assert not (store / MANIFEST_FILE).exists()


def test_a_changed_source_is_converted_anew(hf_directory, tmp_path, tensors):
    store = tmp_path / "store"
    with pytest.raises(StoppedError):
        convert(hf_directory, store, progress=interrupt_in_block(3))
    for path in hf_directory.iterdir():
        path.unlink()
    hf_directory.rmdir()
    other = {name: each + 1 for name, each in tensors.items()}
    write_hugging_face(hf_directory, TINY_CONFIG, other)
    convert(hf_directory, store)
    assert_holds(store, TINY_CONFIG, other)


def test_memory_holds_a_piece_not_a_block(tmp_path):
    config = dataclasses.replace(
        TINY_CONFIG, hidden_size=256, intermediate_size=512, num_layers=16
    )
    tensors = {name: each * 0 for name, each in random_tensors(config).items()}
    write_hugging_face(tmp_path / "wide", config, tensors)
    largest = max(each.nbytes for each in tensors.values())
    del tensors
    tracemalloc.start()
    manifest = convert(tmp_path / "wide", tmp_path / "store", num_blocks=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * largest < manifest.size_bytes / 10


def test_the_bundled_model_is_converted_whole(tmp_path):
    manifest = convert(BUNDLED_DIRECTORY, tmp_path / "store")
    assert manifest.model_name == "stories260K"
    assert manifest.num_blocks == 5
    assert manifest.tokenizer_file == "tokenizer.json"
    assert manifest.config["tie_embeddings"] is True


def test_a_folder_of_the_hugging_face_cache_gives_its_models_name(tmp_path, tensors):
    folder = tmp_path / "models--meta-llama--Llama-3.2-1B" / "snapshots" / "4e20de"
    write_hugging_face(folder, TINY_CONFIG, tensors)
    assert open_checkpoint(folder).model_name == "Llama-3.2-1B"


@pytest.mark.parametrize("num_blocks", [0, 5])
def test_impossible_cuts_are_refused(hf_directory, tmp_path, num_blocks):
    with pytest.raises(ConfigError, match=f"into {num_blocks} blocks"):
        convert(hf_directory, tmp_path / "store", num_blocks=num_blocks)


def test_an_unknown_element_type_is_refused(hf_directory, tmp_path):
    with pytest.raises(ConfigError, match="'int8': choose one of float32"):
        convert(hf_directory, tmp_path / "store", dtype="int8")


def test_a_target_that_is_a_file_is_refused(hf_directory, tmp_path):
    (tmp_path / "store").write_text("something")
    with pytest.raises(CheckpointError, match="cannot be made"):
        convert(hf_directory, tmp_path / "store")


def _edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _truncate(directory, size_bytes):
    path = directory / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:size_bytes])


def _scribble(directory):
    path = directory / "model-00002-of-00002.safetensors"
    path.write_bytes(b"\x04\0\0\0\0\0\0\0text")


def _rename_tensor(directory):
    for path in directory.glob("*.safetensors"):
        data = path.read_bytes()
        path.write_bytes(data.replace(b'"model.norm.weight"', b'"model.norm.wrong!"'))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "config.json").unlink(), "config.json: No such file"),
        (lambda d: (d / "config.json").write_text("{"), "config.json: not JSON"),
        (lambda d: (d / "config.json").write_text("[]"), "holds a list"),
        (
            lambda d: _edit_config(d, architectures=["GPT2LMHeadModel"]),
            "config.json: unknown architecture GPT2LMHeadModel: supported are Llama",
        ),
        (lambda d: _edit_config(d, attention_bias=True), "attention_bias is True"),
        (
            lambda d: _edit_config(d, intermediate_size=99),
            "99.* both of the same model",
        ),
        (lambda d: _edit_config(d, num_hidden_layers=5), "model.layers.4.*is in none"),
        (
            lambda d: (d / "model-00002-of-00002.safetensors").unlink(),
            "model-00002-of-00002.safetensors: No such file",
        ),
        (lambda d: _truncate(d, 0), "00002.safetensors: truncated: 0 bytes"),
        (_scribble, "00002.safetensors: not a safetensors file"),
        (lambda d: _truncate(d, 100), "00002.safetensors: truncated: 100 bytes"),
        (lambda d: _truncate(d, 9000), "00002.safetensors: truncated: 9000 bytes"),
        (lambda d: _truncate(d, -1), "00002.safetensors: truncated"),
        (_rename_tensor, "tensor model.norm.weight is in none of its 2"),
        (
            lambda d: (d / "model.safetensors.index.json").write_text("{}"),
            "no weight_map",
        ),
        (
            lambda d: (d / "model.safetensors.index.json").write_text(
                '{"weight_map": {"x": "../x.safetensors"}}'
            ),
            "is not a file of this folder",
        ),
    ],
)
def test_damage_is_one_clear_error_before_anything_is_written(
    hf_directory, tmp_path, damage, message
):
    damage(hf_directory)
    with pytest.raises(CheckpointError, match=message):
        convert(hf_directory, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_quantised_weights_are_refused(tmp_path, tensors):
    write_hugging_face(tmp_path / "int8", TINY_CONFIG, tensors, dtype=np.int8)
    with pytest.raises(CheckpointError, match="element type I8, supported are"):
        convert(tmp_path / "int8", tmp_path / "store")


def test_no_directory_is_a_clear_error(tmp_path):
    with pytest.raises(CheckpointError, match="no such directory"):
        convert("meta-llama/Llama-3.2-1B", tmp_path / "store")


def test_an_empty_directory_is_a_clear_error(tmp_path):
    with pytest.raises(CheckpointError, match="neither safetensors files nor an Orbax"):
        convert(tmp_path, tmp_path / "store")


def test_rubbish_for_a_journal_is_ignored(hf_directory, tmp_path, tensors):
    store = pathlib.Path(tmp_path / "store")
    store.mkdir()
    (store / JOURNAL_FILE).write_text('{"source_fingerprint": 3}')
    convert(hf_directory, store)
    assert_holds(store, TINY_CONFIG, tensors)
