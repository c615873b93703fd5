import pytest

from jscale.core.errors import CheckpointError
from jscale.store.manifest import Manifest


def test_a_manifest_survives_its_bytes(manifest):
    again = Manifest.from_bytes(manifest.to_bytes())
    assert again == manifest
    assert again.to_bytes() == manifest.to_bytes()
    assert again.digest == manifest.digest


def test_it_knows_partition_and_sizes(manifest):
    assert manifest.num_blocks == manifest.partition.num_blocks == 3
    assert manifest.block_sizes_bytes == (12288, 12288, 12288)
    assert manifest.size_bytes == 3 * 12288


def test_it_loads_from_a_directory(directory, manifest):
    assert Manifest.load(directory) == manifest


def test_a_directory_without_one_is_a_clear_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"manifest.json: No such file"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=9), "format version 9"),
        (lambda m: m.update(dtype="int4"), "'int4'"),
        (lambda m: m.update(tokenizer_file="../secret"), "'../secret'"),
        (lambda m: m.pop("family"), "family"),
        (lambda m: m.update(blocks=[]), "at least one block"),
        (lambda m: m["blocks"].pop(1), "Block"),
        (lambda m: m["blocks"][0].update(file="/etc/passwd"), "passwd"),
        (lambda m: m["blocks"][0].update(digest="12"), "digest '12'"),
        (lambda m: m["blocks"][0]["layout"].update(size_bytes=1), "size_bytes=1"),
        (lambda m: m["blocks"][0]["layout"]["tensors"].reverse(), "kernel"),
    ],
)
def test_a_contradictory_manifest_is_refused(edited, change, message):
    with pytest.raises(CheckpointError, match=message):
        Manifest.from_bytes(edited(change))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe"])
def test_what_is_not_a_manifest_is_refused(data):
    with pytest.raises(CheckpointError, match="not a manifest"):
        Manifest.from_bytes(data)
