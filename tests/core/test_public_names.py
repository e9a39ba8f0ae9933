from __future__ import annotations

import ast
import inspect
from pathlib import Path

import ebsc_core
import ebsc_core.testing


def test_every_public_name_can_be_had() -> None:
    for module in (ebsc_core, ebsc_core.testing):
        assert not [name for name in module.__all__ if getattr(module, name, None) is None]


def test_completion_offers_every_public_name() -> None:
    assert set(ebsc_core.__all__) <= set(dir(ebsc_core))


def test_type_checkers_find_the_names_where_they_are_loaded_from() -> None:
    tree = ast.parse(Path(inspect.getfile(ebsc_core)).read_text(encoding="utf-8"))
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    places = {
        alias.name: node.module
        for node in ast.walk(checked)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert places == ebsc_core._LAZY
