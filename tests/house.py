"""The files of this project, as the house rules see them."""

import ast
import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[1]
CODE_FOLDERS = ("jscale", "models", "launch", "bench")
GENERATED = re.compile(r"_pb2(_grpc)?\.pyi?$")

Complaints = Iterator[str]


@dataclasses.dataclass(frozen=True)
class Source:
    """One file, by its path from the root of the project."""

    path: str
    text: str

    @property
    def name(self) -> str:
        return pathlib.PurePosixPath(self.path).name

    @property
    def num_lines(self) -> int:
        return len(self.text.splitlines())

    @functools.cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


def sources(*suffixes: str) -> Iterator[Source]:
    for folder in (*CODE_FOLDERS, "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            relative = path.relative_to(ROOT).as_posix()
            is_ours = path.suffix in suffixes and not GENERATED.search(path.name)
            if is_ours and path.is_file() and "__pycache__" not in relative:
                yield Source(relative, path.read_text("utf-8"))


def others() -> Iterator[Source]:
    """What people read or run that is not Python."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("jscale/**/*.sh")]
    for path in (*found, ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / ".ci/run"):
        if path.is_file():
            yield Source(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))
