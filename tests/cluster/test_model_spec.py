"""From a manager's settings to what every worker must agree on."""

from pathlib import Path

import pytest

import jscale
from jscale.cluster.config import ManagerConfig
from jscale.cluster.model_spec import load_model_spec
from jscale.core.errors import CheckpointError, ConfigError


def spec_of(tmp_path: Path, **settings: object):  # type: ignore[no-untyped-def]
    config = ManagerConfig(
        jscale.BUNDLED_MODEL,
        "token",
        cache_dir=str(tmp_path),
        **settings,  # type: ignore[arg-type]
    )
    return load_model_spec(config)[0]


def test_pages_are_for_four_contexts_of_each_sequence(tmp_path: Path) -> None:
    engine = spec_of(tmp_path, max_sequences=8, page_tokens=64).engine
    assert engine.num_pages == 4 * 8 * (512 // 64)
    assert engine.max_context == 512


def test_pages_are_fewer_where_memory_does_not_allow_them(tmp_path: Path) -> None:
    # 5 layers of 4 heads of 8 numbers, keys and values: 320 numbers, 1280 bytes.
    engine = spec_of(tmp_path, kv_mib=4, page_tokens=64).engine
    assert engine.num_pages == 4 * 1024 * 1024 // (64 * 1280)


def test_too_little_memory_for_pages_says_how_much_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--kv_mib=1: two contexts of 512 .* 2 MiB"):
        spec_of(tmp_path, kv_mib=1)


def test_context_beyond_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--max_context=513: .* made for 512"):
        spec_of(tmp_path, max_context=513)


def test_rows_of_a_step_are_whole_tiles(tmp_path: Path) -> None:
    assert spec_of(tmp_path, step_rows=40).engine.row_buckets == (16, 48)
    assert spec_of(tmp_path, step_rows=16).engine.row_buckets == (16,)


def test_model_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        load_model_spec(
            ManagerConfig(str(tmp_path / "nowhere"), "t", cache_dir=str(tmp_path))
        )
