"""The rules of the house, checked on the source itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebsc_core import Options
from ebsc_core.plugins.hookspecs import ComponentSpec, Hooks
from ebsc_core.plugins.registry import Entry, Kind, Part, Registry, installed_entry_points

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "ebsc_core": ROOT / "ebsc_core",
    "ebsc_plugins": ROOT / "plugins" / "ebsc_plugins",
    "ebsc_cli": ROOT / "cli" / "ebsc_cli",
}
MAY_NOT_KNOW = {
    "ebsc_core": {"ebsc_plugins", "ebsc_cli"},
    "ebsc_plugins": {"ebsc_cli"},
    "ebsc_cli": {"ebsc_plugins"},
}
SOURCES = [file for folder in PACKAGES.values() for file in sorted(folder.rglob("*.py"))]
LONGEST_FILE = 400

each_source = pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry([found for found in installed_entry_points() if found[1].distribution == "ebsc"])


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module a file imports, and each ``module.name`` it takes from one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def texts(tree: ast.AST) -> Iterator[str]:
    """String constants other than docstrings."""
    documentation = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documentation:
            yield node.value


def top(module: str) -> str:
    return module.partition(".")[0].partition(":")[0]


def test_the_sources_are_found() -> None:
    assert {file.parent.name for file in SOURCES} >= PACKAGES.keys()


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    for file in PACKAGES[package].rglob("*.py"):
        tree = parse(file)
        known = {top(name) for name in (*imports(tree), *texts(tree))}
        assert known.isdisjoint(MAY_NOT_KNOW[package]), file


def test_core_names_no_part(registry: Registry) -> None:
    parts = {e.name for e in registry.entries if isinstance(e.component, ComponentSpec)}
    named = {file.name: parts & set(texts(parse(file))) for file in PACKAGES["ebsc_core"].rglob("*.py")}
    assert not {file: names for file, names in named.items() if names}


@each_source
def test_files_can_be_read_in_one_sitting(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@each_source
def test_nothing_unpickles(file: Path) -> None:
    tree = parse(file)
    found = set(imports(tree))
    assert {"pickle", "cloudpickle", "dill", "joblib", "shelve"}.isdisjoint(map(top, found))
    assert "torch.load" not in found
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) != "torch.load"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert ast.unparse(node.value) == "False"


def test_every_hook_is_a_kind() -> None:
    assert {name for name in vars(Hooks) if name.startswith("ebsc_")} == {kind.hook for kind in Kind}


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_parts(registry: Registry, kind: Kind) -> None:
    assert registry.of(kind)


def test_our_plugins_load(registry: Registry) -> None:
    assert registry.failures == []


def single_parts(registry: Registry) -> Iterator[Part]:
    for entry in registry.entries:
        if isinstance(entry.component, ComponentSpec):
            yield registry.find(entry.kind, entry.name)


def family_members(registry: Registry) -> Iterator[Part]:
    yield registry.find(Kind.BACKBONE, "resnet50")
    yield from (registry.find(Kind.DATA, name) for name in ("images.zip", "images.npz", str(ROOT)))


def test_every_part_can_be_imported(registry: Registry) -> None:
    for part in single_parts(registry):
        assert callable(part.factory), part.name


def test_every_option_is_described(registry: Registry) -> None:
    for part in (*single_parts(registry), *family_members(registry)):
        assert issubclass(part.options_class, Options), part.name
        for option, field in part.options_class.model_fields.items():
            assert field.description, f"{part.name}: {option}"


def test_no_name_is_used_twice(registry: Registry) -> None:
    def identity(entry: Entry) -> tuple[Kind, str]:
        return entry.kind, entry.name

    assert len(set(map(identity, registry.entries))) == len(registry.entries)
