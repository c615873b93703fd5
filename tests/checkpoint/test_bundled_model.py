import json

import numpy as np
import pytest

from jscale.checkpoint.cache import resolve
from jscale.checkpoint.testing import BUNDLED_DIRECTORY
from jscale.models.llama_family import LLAMA
from jscale.models.testing import HfTensors, dense_logits
from jscale.store.block_store import BlockStore
from jscale.store.manifest import Manifest


@pytest.fixture(scope="module")
def tensors(tmp_path_factory):
    """The bundled weights by their Hugging Face names, taken back out of an arena."""
    path = resolve(BUNDLED_DIRECTORY, tmp_path_factory.mktemp("cache"))
    manifest = Manifest.load(path)
    config = LLAMA.config_from_dict(manifest.config)
    store = BlockStore(manifest)
    result: HfTensors = {}
    for block in manifest.partition.blocks:
        store.load(block.index, path)
        sources = LLAMA.hf_sources(config, block)
        layout = manifest.blocks[block.index].layout
        for tensor, leaf in zip(
            layout.tensors, store.publish(block.index), strict=True
        ):
            source = sources[tensor.name]
            parts = np.asarray(leaf) if source.stacked else np.asarray(leaf)[None]
            for name, part in zip(source.names, parts, strict=True):
                result[name] = (part.T if source.transpose else part).copy()
            del leaf, parts, part
    store.close()
    return config, result


def test_the_bundled_model_gives_the_oracle_from_the_arena(tensors):
    """Every token of the oracle follows from the ones before it: one dense pass."""
    config, weights = tensors
    oracle = json.loads((BUNDLED_DIRECTORY / "greedy_expected.json").read_text())
    token_ids = [oracle["bos"], *oracle["greedy_token_ids"]]
    logits = dense_logits(config, weights, token_ids[:-1])
    assert logits.argmax(axis=-1).tolist() == token_ids[1:]
