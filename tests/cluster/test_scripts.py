from pathlib import Path

import pytest

from tests.cluster import manager_script, worker_script

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_state_machine_does_what_the_script_says(
    path: Path, pytestconfig: pytest.Config
) -> None:
    is_manager = path.stem.startswith("manager_")
    module = manager_script if is_manager else worker_script
    expected = path.read_text()
    actual = module.transcript(expected)
    if pytestconfig.getoption("--rewrite"):
        path.write_text(actual)
    else:
        assert actual == expected
