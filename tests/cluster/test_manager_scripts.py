from pathlib import Path

import pytest

from tests.cluster.manager_script import transcript

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("manager_*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_manager_does_what_the_script_says(
    path: Path, pytestconfig: pytest.Config
) -> None:
    expected = path.read_text()
    actual = transcript(expected)
    if pytestconfig.getoption("--rewrite"):
        path.write_text(actual)
    else:
        assert actual == expected
