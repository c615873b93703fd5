import json

import numpy as np
import pytest

from jscale.core.layout import BlockLayout, TensorLayout
from jscale.core.partition import Partition
from jscale.store import disk
from jscale.store.digest import digest_of
from jscale.store.manifest import BlockEntry, Manifest


def toy_layout(block):
    """Two float32 tensors and a bfloat16 one, with padding between them."""
    return BlockLayout(
        block,
        (
            TensorLayout("kernel", "float32", (block.num_layers, 30, 50), 0),
            TensorLayout("scale", "bfloat16", (block.num_layers, 7), 12032),
        ),
        12288,
    )


@pytest.fixture
def blocks():
    """The bytes of three blocks: what a store of the toy model must hold."""
    rng = np.random.default_rng(0)
    result = []
    for block in Partition.of_layers((2, 2, 2)).blocks:
        layout = toy_layout(block)
        data = bytearray(layout.size_bytes)
        for tensor in layout.tensors:
            end = tensor.offset_bytes + tensor.size_bytes
            data[tensor.offset_bytes : end] = rng.bytes(tensor.size_bytes)
        result.append(bytes(data))
    return result


@pytest.fixture
def manifest(blocks):
    partition = Partition.of_layers((2, 2, 2))
    return Manifest(
        model_name="toy",
        family="toy",
        config={"vocab_size": 7, "rope_theta": 10000.0},
        dtype="float32",
        blocks=tuple(
            BlockEntry(
                layout=toy_layout(block),
                digest=digest_of(data),
                file=disk.block_file(block),
            )
            for block, data in zip(partition.blocks, blocks, strict=True)
        ),
    )


@pytest.fixture
def directory(tmp_path, manifest, blocks):
    """A block store on disk."""
    for entry, data in zip(manifest.blocks, blocks, strict=True):
        (tmp_path / entry.file).write_bytes(data)
    disk.write_manifest(tmp_path, manifest)
    return tmp_path


@pytest.fixture
def edited(manifest):
    """Makes the JSON of the manifest with some of it changed."""

    def edit(change):
        values = json.loads(manifest.to_bytes())
        change(values)
        return json.dumps(values).encode()

    return edit
