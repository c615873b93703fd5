import json
from pathlib import Path

import pytest

import jscale


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Compiled executables are made once for all of these tests."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def oracle() -> list[int]:
    text = (Path(jscale.BUNDLED_MODEL) / "greedy_expected.json").read_text()
    return list(json.loads(text)["greedy_token_ids"])
