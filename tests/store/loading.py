"""A model from its files to arrays, whatever memory it is loaded into."""

import numpy as np

from jscale.checkpoint.random_model import config_of_size, write_random_model
from jscale.store.block_reader import BlockReader
from jscale.store.block_store import BlockStore


def assert_a_model_loads(folder, new_arena, *, size_bytes, timeout_s=1.0):
    """Each array has the bytes that the files have."""
    config = config_of_size(size_bytes, num_layers=4, dtype="bfloat16")
    manifest = write_random_model(folder, config, dtype="bfloat16", num_blocks=3)
    store = BlockStore(manifest, new_arena=new_arena)
    places = {i: [folder / entry.file] for i, entry in enumerate(manifest.blocks)}
    BlockReader(store.chunks, places, store).run()
    for index, entry in enumerate(manifest.blocks):
        store.verify(index)
        data = (folder / entry.file).read_bytes()
        leaves = store.publish(index)
        for leaf, tensor in zip(leaves, entry.layout.tensors, strict=True):
            start = tensor.offset_bytes
            wanted = data[start : start + tensor.size_bytes]
            assert np.asarray(leaf).tobytes() == wanted
    del leaves, leaf
    store.close(timeout_s)
