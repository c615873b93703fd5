"""Block stores of random weights, of any size: for tests, benches and dry runs."""

import os
import pathlib
from collections.abc import Iterator

import numpy as np

from jscale.checkpoint.reader import NUMPY_DTYPES, TOKENIZER_FILE
from jscale.core.layout import DTYPE_SIZE_BYTES, BlockLayout, TensorLayout
from jscale.models.llama_config import LlamaConfig
from jscale.models.llama_family import LLAMA
from jscale.plan.partition import cut
from jscale.store import disk
from jscale.store.manifest import Manifest


def write_random_model(
    path: os.PathLike[str] | str,
    config: LlamaConfig,
    *,
    seed: int = 0,
    dtype: str = "float32",
    num_blocks: int | None = None,
    model_name: str = "random",
    tokenizer_file: os.PathLike[str] | str | None = None,
) -> Manifest:
    """Writes a block store of weights that keep activations near unit size.

    The same arguments give the same bytes. About 0.3 GB/s; one layer's tensor at a
    time is in memory.

    Args:
      path: the directory to be.
      config: sizes of the model; see `config_of_size`.
      seed: of the weights.
      dtype: element type of the weights.
      num_blocks: how many blocks; by default what `jscale.plan.partition.cut` finds.
      model_name: for the manifest.
      tokenizer_file: a `tokenizer.json` to be copied beside the blocks.

    Raises:
      CheckpointError: the directory cannot be written.
      ConfigError: there cannot be so many blocks.
    """
    sizes = LLAMA.part_sizes(config, dtype)
    partition = cut(
        config.num_layers,
        layer_bytes=sizes.layer_bytes,
        embed_bytes=sizes.embed_bytes,
        head_bytes=sizes.head_bytes,
        num_blocks=num_blocks,
    )
    entries = []
    for block in partition.blocks:
        layout = LLAMA.layout(config, block, dtype)
        rng = np.random.default_rng((seed, block.index))
        entries.append(disk.write_block(path, layout, _random_tensors(layout, rng)))
    if tokenizer_file is not None:
        data = memoryview(pathlib.Path(tokenizer_file).read_bytes())
        disk.write_atomically(pathlib.Path(path) / TOKENIZER_FILE, [data])
    manifest = Manifest(
        model_name=model_name,
        family=LLAMA.name,
        config=config.to_dict(),
        dtype=dtype,
        kv_values_per_token=LLAMA.kv_values_per_token(config),
        blocks=tuple(entries),
        tokenizer_file=None if tokenizer_file is None else TOKENIZER_FILE,
    )
    disk.write_manifest(path, manifest)
    return manifest


def config_of_size(
    size_bytes: int,
    *,
    num_layers: int = 16,
    dtype: str = "float32",
    vocab_size: int = 512,
    max_context: int = 512,
) -> LlamaConfig:
    """A config whose blocks together take `size_bytes`, within about a percent.

    The vocabulary is that of the bundled tokenizer by default.
    """
    num_weights = size_bytes / DTYPE_SIZE_BYTES[dtype]
    hidden = max(64, round((num_weights / num_layers / 12) ** 0.5 / 64) * 64)
    for_layers = num_weights - 2 * vocab_size * hidden
    inner = (for_layers / num_layers - 4 * hidden * hidden) / (3 * hidden)
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=max(8, round(inner / 8) * 8),
        num_layers=num_layers,
        num_heads=hidden // 32,
        num_kv_heads=hidden // 32,
        head_dim=32,
        max_context=max_context,
        bos_token_id=1,
    )


def _random_tensors(
    layout: BlockLayout, rng: np.random.Generator
) -> Iterator[Iterator[np.ndarray]]:
    for tensor in layout.tensors:
        yield _random_rows(tensor, rng)


def _random_rows(
    tensor: TensorLayout, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """The tensor, one entry of its first axis at a time where that is its layers."""
    is_stacked = tensor.name.startswith("layers.")
    shape = tensor.shape[1:] if is_stacked else tensor.shape
    for _ in range(tensor.shape[0] if is_stacked else 1):
        if len(shape) == 1:
            values = np.ones(shape, np.float32)
        else:
            # A kernel [in, out] sums over `in`; the table [vocab, embed] gives rows.
            fan = shape[1] if tensor.name == "embed.table" else shape[0]
            values = rng.standard_normal(shape, np.float32)
            values *= np.float32(fan**-0.5)
        yield values.astype(NUMPY_DTYPES[tensor.dtype]).reshape(-1).view(np.uint8)
