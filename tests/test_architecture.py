"""The rules of the house, checked on the source itself: docs/architecture.md says what they are for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import ebsc_core
import ebsc_core.testing
from ebsc_core.plugins.hookspecs import ComponentSpec
from ebsc_core.plugins.installed import installed_entry_points
from ebsc_core.plugins.registry import Registry

ROOT = Path(__file__).resolve().parents[1]
HOLDERS = {"ebsc_core": ROOT, "ebsc_plugins": ROOT / "plugins", "ebsc_cli": ROOT / "cli"}
MAY_KNOW = {"ebsc_core": set[str](), "ebsc_plugins": {"ebsc_core"}, "ebsc_cli": {"ebsc_core"}}
# The packages of ebsc_core from the ground up. Each may import those below it, but none beside it.
FLOORS = [
    {"utils"},
    {"config"},
    {"plugins"},
    {"data"},
    {"training", "clustering"},
    {"runs"},
    {"curation"},
    {"report", "testing"},
    {"estimators", "benchmark"},
]
# Checks of a part are of what it owes to whoever calls it, not of a run.
NOT_FROM = {"testing": {"runs", "curation"}}
# What a plugin may import from, and where plugins are written: ours, examples, templates, documentation.
PUBLIC = (ebsc_core, ebsc_core.testing)
PLUGINS = {
    "plugins": "*.py",
    "examples/plugins": "*.py",
    "ebsc_core/plugins/templates": "*.py.template",
    "docs/plugins": "*.md",
}
MAX_PACKAGES, LONGEST_FILE = 12, 400


def module_name(file: Path, holder: Path) -> str:
    return ".".join(file.relative_to(holder).with_suffix("").parts).removesuffix(".__init__")


@cache
def sources() -> dict[str, Path]:
    """Every module of ours, by its name."""
    return {
        module_name(file, holder): file
        for package, holder in HOLDERS.items()
        for file in sorted((holder / package).rglob("*.py"))
    }


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(sources()[module].read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, wherever in a file, and each ``module.name`` that is taken from one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "imports are absolute here"
            assert not node.level, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def texts(tree: ast.AST) -> Iterator[str]:
    """String constants other than docstrings."""
    documentation = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documentation:
            yield node.value


def ours(name: str) -> str | None:
    """The module of ours that ``package.module.name`` or ``package.module:name`` is in, if it is in one."""
    name = name.replace(":", ".")
    while name and name not in sources():
        name = name.rpartition(".")[0]
    return name or None


def imported(module: str) -> set[str]:
    """The modules of ours that a module imports."""
    return {found for name in imports(parsed(module)) if (found := ours(name))} - {module}


def named(module: str) -> set[str]:
    """Those that a text in it names, for whoever imports them later."""
    words = [text for text in texts(parsed(module)) if text.partition(".")[0].partition(":")[0] in HOLDERS]
    return {found for word in words if (found := ours(word))}


def part_of_core(module: str) -> str:
    """``data`` of ``ebsc_core.data.views.apply``; nothing of ``ebsc_core`` itself."""
    return module.partition(".")[2].partition(".")[0]


def test_imports_go_from_the_top_down() -> None:
    assert HOLDERS.keys() <= sources().keys()
    below: dict[str, set[str]] = {}
    for floor in FLOORS:
        lower = set(below)
        below |= {package: {package, *lower} - NOT_FROM.get(package, set()) for package in floor}
    below[""] = set(below)
    wrong = []
    for module in sources():
        package = module.partition(".")[0]
        for other in imported(module) | named(module):
            holder = other.partition(".")[0]
            if holder != package:
                right = holder in MAY_KNOW[package]
            else:
                right = package != "ebsc_core" or part_of_core(other) in below[part_of_core(module)]
            wrong += [] if right else [f"{module} imports {other}"]
    assert not wrong


def test_no_imports_go_in_a_circle() -> None:
    try:
        TopologicalSorter({module: imported(module) for module in sources()}).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


def test_files_lie_in_few_packages_and_can_be_read_in_one_sitting() -> None:
    root = {path.name: path.is_dir() for path in (ROOT / "ebsc_core").iterdir() if path.name != "__pycache__"}
    packages = {name for name, is_folder in root.items() if is_folder}
    assert root.keys() - packages == {"__init__.py", "py.typed"}
    assert packages == set().union(*FLOORS)
    assert len(packages) <= MAX_PACKAGES
    lengths = {
        module: len(file.read_text(encoding="utf-8").splitlines()) for module, file in sources().items()
    }
    assert not {module: length for module, length in lengths.items() if length > LONGEST_FILE}


def code_of_plugins() -> Iterator[tuple[Path, str]]:
    """Python code of all plugins there are, with the file that it is in."""
    for folder, pattern in PLUGINS.items():
        files = sorted((ROOT / folder).rglob(pattern))
        assert files, folder
        for file in files:
            text = file.read_text(encoding="utf-8")
            if file.suffix == ".md":
                text = "\n".join(re.findall(r"^from ebsc_core.*$", text, flags=re.MULTILINE))
            if file.suffix == ".template":
                text = re.sub(r"\$\{?(checks|\w+)\}?", r"\1", text)
                text = text.replace("import checks", "import objective_checks")
            yield file, text


def test_plugins_import_public_names_only() -> None:
    public = {f"{module.__name__}.{name}" for module in PUBLIC for name in module.__all__}
    public |= {module.__name__ for module in PUBLIC}
    wrong = []
    for file, code in code_of_plugins():
        tree = ast.parse(code)
        used = {name for name in imports(tree) if name.partition(".")[0] == "ebsc_core"}
        used |= {text for text in texts(tree) if re.fullmatch(r"ebsc_core(\.\w+)+(:\w+)?", text)}
        wrong += [f"{file.relative_to(ROOT)} imports {name}" for name in sorted(used - public)]
    assert not wrong


def test_core_names_no_part() -> None:
    registry = Registry([found for found in installed_entry_points() if found[1].distribution == "ebsc"])
    parts = {entry.name for entry in registry.entries if isinstance(entry.component, ComponentSpec)}
    core = [module for module in sources() if module.partition(".")[0] == "ebsc_core"]
    assert not {module: names for module in core if (names := parts & set(texts(parsed(module))))}


def test_nothing_unpickles() -> None:
    for module in sources():
        tree = parsed(module)
        found = {name.partition(".")[0] for name in imports(tree)}
        assert {"pickle", "cloudpickle", "dill", "joblib", "shelve"}.isdisjoint(found), module
        assert "torch.load" not in set(imports(tree)), module
        checked = set[ast.AST]()
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                # This reads tensors and plain values, and refuses all other objects.
                assert "weights_only=True" in map(ast.unparse, node.keywords), module
                checked.add(node.func)
            if isinstance(node, ast.Attribute) and node not in checked:
                assert ast.unparse(node) != "torch.load", module
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", module
