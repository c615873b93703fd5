"""From a manager's settings to what every worker of the model must agree on."""

import pathlib

from jscale.checkpoint.cache import resolve
from jscale.cluster.config import CONTEXT_MAX_DEFAULT, ManagerConfig
from jscale.cluster.messages import ModelSpec
from jscale.core.chunks import chunk_size_for
from jscale.core.errors import ConfigError
from jscale.core.layout import DTYPE_SIZE_BYTES
from jscale.core.units import MIB, round_up
from jscale.engine.config import TILE_ROWS, EngineConfig
from jscale.store.manifest import Manifest

CONTEXTS_OF_PAGES = 4
"""Whole contexts of KV pages for each sequence that decodes: half for the local
replica, half for the pipelines that a worker is part of while others load."""


def load_model_spec(config: ManagerConfig) -> tuple[ModelSpec, pathlib.Path]:
    """The spec, and the block store that the model is read from.

    Raises:
      CheckpointError: the model cannot be read.
      ConfigError: a setting does not fit the model.
    """
    path = resolve(config.model_path, config.cache_dir)
    manifest = Manifest.load(path)
    model_context = int(manifest.config["max_context"])
    max_context = config.max_context or min(model_context, CONTEXT_MAX_DEFAULT)
    if max_context > model_context:
        raise ConfigError(
            f"--max_context={max_context}: {manifest.model_name} was made for "
            f"{model_context} tokens; give at most that"
        )
    num_pages = _num_pages(config, manifest, max_context)
    step_rows = round_up(config.step_rows, TILE_ROWS)
    engine = EngineConfig(
        row_buckets=tuple(sorted({TILE_ROWS, step_rows})),
        page_tokens=config.page_tokens,
        num_pages=num_pages,
        max_context=max_context,
        max_sequences=config.max_sequences,
        compute_dtype=config.compute_dtype,
        moves_kv=config.moves_kv,
    )
    spec = ModelSpec(
        model_name=manifest.model_name,
        manifest=manifest.to_bytes(),
        engine=engine,
        chunk_size_bytes=config.chunk_size_bytes
        or chunk_size_for(sum(manifest.block_sizes_bytes)),
        block_sizes_bytes=manifest.block_sizes_bytes,
    )
    return spec, path


def _num_pages(config: ManagerConfig, manifest: Manifest, max_context: int) -> int:
    """KV pages of a worker: what the settings can use, as far as memory allows."""
    pages_per_sequence = -(-max_context // config.page_tokens)
    wanted = CONTEXTS_OF_PAGES * config.max_sequences * pages_per_sequence
    page_bytes = (
        config.page_tokens
        * manifest.kv_values_per_token
        * DTYPE_SIZE_BYTES[config.compute_dtype]
    )
    if not page_bytes:
        return wanted
    allowed = config.kv_mib * MIB // page_bytes
    if allowed < 2 * pages_per_sequence:
        least = -(-2 * pages_per_sequence * page_bytes // MIB)
        raise ConfigError(
            f"--kv_mib={config.kv_mib}: two contexts of {max_context} tokens of "
            f"{manifest.model_name} take {least} MiB; give at least that, or a smaller "
            f"--max_context"
        )
    return min(wanted, allowed)
