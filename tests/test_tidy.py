"""The house rules of code that a machine can hold. A failure says what to do.

Each rule is a function from one file to its complaints, tried on a bad example too.
"""

import ast
import functools
import importlib.metadata
import os
import pathlib
import re
import sys
import tomllib
from collections.abc import Callable, Mapping

import pytest

from tests.house import ROOT, Complaints, Source, others, sources

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
MAIN_LINES_MAX = 79

VAGUE_NAMES = {"common", "helpers", "misc", "tools", "util", "utils"}
OF_THE_SYSTEM = {"pyverbs"}
"""Packages that no index has: a system brings them, and rdma:// alone needs them."""
LAZY_FUNCTIONS = {"__getattr__", "__dir__"}
MACHINE_PATH = re.compile(r"(?<![\w.~}])/(home|mnt|root|tmp|work)/")

Rule = Callable[[Source], Complaints]


def file_is_short(source: Source) -> Complaints:
    if source.num_lines > FILE_LINES_MAX:
        yield (
            f"{source.num_lines} lines: split it into files of one subject each, "
            f"of at most {FILE_LINES_MAX}"
        )


def functions_are_short(source: Source) -> Complaints:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            num_lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if num_lines > FUNCTION_LINES_MAX:
                yield (
                    f"{node.name} has {num_lines} lines: give its steps names of "
                    f"their own, at most {FUNCTION_LINES_MAX} lines each"
                )


def main_is_short(source: Source) -> Complaints:
    is_main = source.path.startswith("launch/") and "__main__" in source.text
    if is_main and source.num_lines > MAIN_LINES_MAX:
        yield (
            f"{source.num_lines} lines: a main is flags, a config and one call; move "
            f"the rest into the library until at most {MAIN_LINES_MAX} are left"
        )


def module_has_a_docstring(source: Source) -> Complaints:
    if not source.path.startswith("tests/") and not ast.get_docstring(source.tree):
        yield "no docstring: say in the first line what one finds here"


def package_is_bare(source: Source) -> Complaints:
    if source.name == "__init__.py":
        for node in source.tree.body:
            if not _is_bare(node):
                yield (
                    f"line {node.lineno}: an __init__ holds a docstring and lazy "
                    "names; move this into a module of the package"
                )


def imports_are_absolute(source: Source) -> Complaints:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
            if node.level:
                yield f"line {node.lineno}: write the import from jscale on"
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for folder in {name.split(".")[0] for name in names} & {"models", "launch"}:
            yield f"line {node.lineno}: {folder} is imported as jscale.{folder}"


def name_says_what_is_in_it(source: Source) -> Complaints:
    for part in pathlib.PurePosixPath(source.path).with_suffix("").parts:
        if part in VAGUE_NAMES:
            yield f"{part!r} says nothing: name it after what is in it"


def names_no_machine(source: Source) -> Complaints:
    """Tests may: a path that does not exist is often what they are about."""
    if source.path.startswith("tests/"):
        return
    for number, line in enumerate(source.text.splitlines(), 1):
        if found := MACHINE_PATH.search(line):
            yield (
                f"line {number}: {found[0]} is a place on somebody's machine; take "
                "the path as an argument, or use tempfile"
            )


PYTHON_RULES: tuple[Rule, ...] = (
    file_is_short,
    functions_are_short,
    main_is_short,
    module_has_a_docstring,
    package_is_bare,
    imports_are_absolute,
    name_says_what_is_in_it,
    names_no_machine,
)


def _is_bare(node: ast.stmt) -> bool:
    match node:
        case ast.Expr(ast.Constant(str())):
            return True
        case ast.Import(names):
            return all(alias.name in sys.stdlib_module_names for alias in names)
        case ast.ImportFrom(module=module):
            return (module or "").split(".")[0] in sys.stdlib_module_names
        case ast.If(test=ast.Name("TYPE_CHECKING")):
            return True
        case ast.If(test=ast.Compare(left=ast.Name("__name__")), body=[ast.Raise()]):
            return True
        case ast.Assign() | ast.AnnAssign():
            return True
        case ast.FunctionDef(name=name):
            return name in LAZY_FUNCTIONS
    return False


def imports_are_declared(source: Source, declared: set[str]) -> Complaints:
    """Complaints about what pyproject.toml does not bring; `testing` may use more."""
    providers = _providers()
    for node in ast.walk(source.tree):
        match node:
            case ast.Import(names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module)):
                modules = [module]
            case _:
                continue
        for top in {module.split(".")[0] for module in modules}:
            is_ours = top == "jscale" or top in sys.stdlib_module_names | OF_THE_SYSTEM
            if not is_ours and declared.isdisjoint(map(_plain, providers.get(top, ()))):
                yield f"line {node.lineno}: {top} is no dependency in pyproject.toml"


@functools.cache
def _providers() -> Mapping[str, list[str]]:
    """Which distributions bring a top-level package."""
    return importlib.metadata.packages_distributions()


def _plain(requirement: str) -> str:
    """The name in a requirement, as package indices compare them."""
    name = re.match(r"[\w.-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


# --- the house -----------------------------------------------------------------------


@pytest.mark.parametrize("rule", PYTHON_RULES, ids=lambda rule: rule.__name__)
def test_every_python_file_keeps_the_rule(rule):
    complaints = [f"{s.path}: {c}" for s in sources(".py") for c in rule(s)]
    assert not complaints, "\n" + "\n".join(complaints)


def test_no_other_file_names_a_machine():
    complaints = [f"{s.path}: {c}" for s in others() for c in names_no_machine(s)]
    assert not complaints, "\n" + "\n".join(complaints)


@pytest.mark.parametrize("folder", ["models", "launch"])
def test_the_folders_beside_the_package_are_linked_into_it(folder):
    link = ROOT / "jscale" / folder
    hint = f"restore it: ln -sfn ../{folder} jscale/{folder}"
    assert link.is_symlink(), f"jscale/{folder} is no link: {hint}"
    assert os.readlink(link) == f"../{folder}", hint


def test_what_is_imported_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {_plain(requirement) for requirement in project["dependencies"]}
    complaints = [
        f"{source.path}: {complaint}"
        for source in sources(".py")
        if source.path.startswith(("jscale/", "models/", "launch/"))
        if source.name != "testing.py"
        for complaint in imports_are_declared(source, declared)
    ]
    assert not complaints, "\n" + "\n".join(complaints)


# --- the rules themselves ------------------------------------------------------------


LONG_FUNCTION = "def f():\n" + "    pass\n" * FUNCTION_LINES_MAX

BAD: list[tuple[Rule, str, str]] = [
    (file_is_short, "jscale/a.py", "x = 1\n" * (FILE_LINES_MAX + 1)),
    (functions_are_short, "jscale/a.py", LONG_FUNCTION),
    (functions_are_short, "tests/test_a.py", "class A:\n  async " + LONG_FUNCTION[:-1]),
    (main_is_short, "launch/a.py", "x = 1\n" * 79 + "if __name__ == '__main__': f()\n"),
    (module_has_a_docstring, "bench/a.py", "# A comment.\nx = 1\n"),
    (package_is_bare, "jscale/a/__init__.py", "from jscale.core import ids\n"),
    (package_is_bare, "jscale/a/__init__.py", "def public():\n    pass\n"),
    (package_is_bare, "jscale/a/__init__.py", "class A:\n    pass\n"),
    (imports_are_absolute, "jscale/a.py", "from . import b\n"),
    (imports_are_absolute, "jscale/a.py", "from models import llama\n"),
    (imports_are_absolute, "jscale/a.py", "def f():\n    import launch.serve\n"),
    (name_says_what_is_in_it, "jscale/core/utils.py", ""),
    (name_says_what_is_in_it, "jscale/helpers/a.py", ""),
    (names_no_machine, "jscale/a.py", "PATH = '/" + "home/me/model'\n"),
    (names_no_machine, "README.md", "    cd /" + "tmp/jscale\n"),
]


@pytest.mark.parametrize(("rule", "path", "text"), BAD)
def test_a_rule_complains_of_a_bad_example_once(rule, path, text):
    assert len(list(rule(Source(path, text)))) == 1


GOOD_PACKAGE = '''"""Says what is here."""
import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jscale.core.ids import WorkerId

__all__ = ["WorkerId"]

def __getattr__(name):
    return getattr(importlib.import_module("jscale.core.ids"), name)
'''


@pytest.mark.parametrize("rule", PYTHON_RULES, ids=lambda rule: rule.__name__)
def test_no_rule_complains_of_a_good_example(rule):
    assert not list(rule(Source("jscale/a/__init__.py", GOOD_PACKAGE)))
    assert not list(rule(Source("launch/a.py", '"""Says."""\nimport jscale.models\n')))


def test_an_import_that_is_not_declared_is_found():
    source = Source("jscale/a.py", "import os\nimport pytest as p\nimport jscale.b\n")
    assert not list(imports_are_declared(source, {"pytest"}))
    assert len(list(imports_are_declared(source, {"jax"}))) == 1
