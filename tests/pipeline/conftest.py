import functools
import json
from pathlib import Path

import pytest

import jscale
from jscale.checkpoint.convert import convert
from jscale.engine.config import EngineConfig
from jscale.engine.executables import ExecutableSet
from jscale.engine.kv_copy import kv_copy_specs
from jscale.engine.program import ModelProgram
from jscale.store.block_store import BlockStore
from tests.pipeline.cluster_in_process import World, expected_alone
from tests.pipeline.hand_overs import Alone, Parts, with_workers


@pytest.fixture(scope="session")
def bundled_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store")
    convert(jscale.BUNDLED_MODEL, path)
    return path


@pytest.fixture(scope="session")
def parts(bundled_store: Path) -> tuple[ModelProgram, ExecutableSet, BlockStore]:
    """What every world shares: a model, compiled once, and its blocks."""
    from jscale.store.manifest import Manifest

    manifest = Manifest.load(bundled_store)
    engine = EngineConfig(num_pages=256, max_sequences=4)
    program = ModelProgram.of(manifest, engine)
    executables = ExecutableSet(program)
    executables.compile((*program.stage_specs(), *program.fused_specs()))
    executables.compile(kv_copy_specs(program))
    store = BlockStore(manifest)
    for block in range(manifest.num_blocks):
        store.load(block, bundled_store)
    return program, executables, store


@pytest.fixture
def world(
    parts: tuple[ModelProgram, ExecutableSet, BlockStore],
    request: pytest.FixtureRequest,
) -> World:
    return World(*parts, seed=getattr(request, "param", 0))


@pytest.fixture(scope="session")
def oracle() -> list[int]:
    """The greedy tokens of the bundled model from BOS, computed elsewhere."""
    text = (Path(jscale.BUNDLED_MODEL) / "greedy_expected.json").read_text()
    return list(json.loads(text)["greedy_token_ids"])


@pytest.fixture(scope="session")
def alone(parts: Parts) -> Alone:
    """The tokens of each prompt, alone on a worker; computed once."""

    @functools.cache
    def computed(sampling: tuple[tuple[str, object], ...]) -> dict[str, list[int]]:
        return expected_alone(World(*parts), **dict(sampling))

    return lambda sampling: computed(tuple(sampling.items()))


@pytest.fixture
def moving(world: World) -> World:
    """Four workers that move KV wherever it is still there."""
    return with_workers(world, "always")
