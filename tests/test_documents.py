"""What documents say is so: commands, flags, links, and the map of the house."""

import dataclasses
import os
import re
import tomllib
from collections.abc import Callable

import pytest

from tests.house import ROOT, Complaints, Source, others, sources

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "jscale/README.md", "bench/README.md")


@dataclasses.dataclass(frozen=True)
class Commands:
    """What can be typed: make targets, and the flags of each command."""

    targets: frozenset[str]
    flags: dict[str, frozenset[str]]


def commands_exist(document: str, commands: Commands) -> Complaints:
    """Complaints about `make x` and `jscale-x --flag` in code that do not exist."""
    for line in _code_lines(document):
        for target in re.findall(r"(?:^|[\s`;&])make ([a-z][\w-]*)", line):
            if target not in commands.targets:
                yield f"`make {target}`: the Makefile has no such target"
        for name, options in re.findall(r"(jscale-[a-z]+)([^|;&]*)", line):
            if name not in commands.flags:
                yield f"`{name}`: pyproject.toml has no such script"
                continue
            for flag in re.findall(r"--(?:no)?([a-z_]+)", options):
                known = commands.flags[name]
                if not {flag, f"no{flag}"} & known and flag != "help":
                    yield f"`{name} --{flag}`: it has no such flag"


def links_lead_somewhere(source: Source, exists: Callable[[str], bool]) -> Complaints:
    folder = os.path.dirname(source.path)
    for link in re.findall(r"\]\(([^)#\s]+)", source.text):
        if "://" not in link and not exists(
            os.path.normpath(os.path.join(folder, link))
        ):
            yield f"link to {link}, which is not there"


def map_is_complete(text: str, modules: dict[str, list[str]]) -> Complaints:
    """Complaints about modules without a line in the section of their package."""
    sections = re.split(r"^#+ ", text, flags=re.MULTILINE)
    by_title = {section.split("\n", 1)[0].strip(): section for section in sections}
    for package, names in modules.items():
        section = by_title.get(f"`{package}`")
        if section is None:
            yield f"no section `{package}`: say what the package is for"
            continue
        for name in names:
            if f"`{name}`" not in section:
                yield f"section `{package}` lacks `{name}`: give it a line"


def _code_lines(document: str) -> list[str]:
    """Lines of code blocks, continued ones joined, and spans of code."""
    paragraphs = [text.splitlines() for text in re.split(r"\n\s*\n", document)]
    blocks = [p for p in paragraphs if all(line.startswith("    ") for line in p)]
    indented = [line for block in blocks for line in block]
    fenced = re.findall(r"^```\w*\n(.*?)^```", document, re.MULTILINE | re.DOTALL)
    joined = "\n".join((*indented, *fenced)).replace("\\\n", " ")
    return [*joined.splitlines(), *re.findall(r"`([^`\n]+)`", document)]


def commands() -> Commands:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"^([a-z][\w-]*)\s*:(?!=)", makefile, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    launch = {path.stem: path.read_text("utf-8") for path in ROOT.glob("launch/*.py")}
    shared = "".join(text for text in launch.values() if "__main__" not in text)
    flags = {}
    for script, entry in project["scripts"].items():
        text = shared + launch[entry.partition(":")[0].rpartition(".")[2]]
        flags[script] = frozenset(re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", text))
    return Commands(frozenset(targets), flags)


def test_documents_name_commands_that_exist():
    known = commands()
    complaints = [
        f"{name}: {complaint}"
        for name in DOCUMENTS
        if (ROOT / name).exists()
        for complaint in commands_exist((ROOT / name).read_text("utf-8"), known)
    ]
    assert not complaints, "\n" + "\n".join(complaints)


def test_documents_link_to_what_is_there():
    complaints = [
        f"{source.path}: {complaint}"
        for source in others()
        if source.name.endswith(".md")
        for complaint in links_lead_somewhere(source, lambda p: (ROOT / p).exists())
    ]
    assert not complaints, "\n" + "\n".join(complaints)


def test_the_map_names_every_module():
    modules: dict[str, list[str]] = {}
    for source in sources(".py"):
        package, _, name = source.path.removesuffix(".py").rpartition("/")
        package = package.removeprefix("jscale/").partition("/")[0]
        is_ours = source.path.startswith(("jscale/", "models/", "launch/", "bench/"))
        if is_ours and package != "jscale" and name != "__init__":
            modules.setdefault(package, []).append(name)
    complaints = list(
        map_is_complete((ROOT / "jscale/README.md").read_text("utf-8"), modules)
    )
    assert not complaints, "\njscale/README.md: " + "\n".join(complaints)


# --- the rules themselves ------------------------------------------------------------


KNOWN = Commands(frozenset({"test"}), {"jscale-serve": frozenset({"model", "verbose"})})


@pytest.mark.parametrize(
    "document",
    [
        "    make tset\n",
        "Run `make tset`.\n",
        "```bash\njscale-sreve\n```\n",
        "    jscale-serve --modle=x\n",
        "    jscale-serve --model=x \\\n      --port=1\n",
    ],
)
def test_commands_that_do_not_exist_are_found(document):
    assert len(list(commands_exist(document, KNOWN))) == 1


def test_commands_that_exist_are_not_complained_of():
    document = (
        "    make test && jscale-serve --model=x --noverbose --help\n\n"
        "1. I\n    make sure\n"
    )
    assert not list(commands_exist(document, KNOWN))


def test_a_dead_link_is_found():
    source = Source("a/README.md", "[b](b.md) [c](../c.md#d) [e](https://e)")
    assert not list(links_lead_somewhere(source, {"a/b.md", "c.md"}.__contains__))
    assert len(list(links_lead_somewhere(source, {"a/b.md"}.__contains__))) == 1


def test_a_module_that_the_map_lacks_is_found():
    text = "# Map\n## `plan`\n| `chain` | … |\n## `core`\n| `ids` | … |\n"
    assert not list(map_is_complete(text, {"plan": ["chain"], "core": ["ids"]}))
    assert len(list(map_is_complete(text, {"plan": ["chain", "ids"]}))) == 1
    assert len(list(map_is_complete(text, {"store": ["arena"]}))) == 1
