"""Provide plugins that no distribution installs, and a folder that looks like an installation."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from ebsc_core.plugins.hookspecs import ENTRY_POINT_GROUP
from ebsc_core.plugins.installed import Provider
from support.plugin_sources import NUMBERS, MakePlugin, Plugin, objective


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakePlugin:
    """Writes a module and gives the entry point an installed distribution would have for it."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(source: str, distribution: str = "alpha", version: str = "1.0", name: str = "") -> Plugin:
        module = f"ebsc_test_plugin_{next(NUMBERS)}"
        (tmp_path / f"{module}.py").write_text(source)
        entry_point = EntryPoint(name or f"{distribution}-parts", module, ENTRY_POINT_GROUP)
        return entry_point, Provider(distribution, version)

    return make


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on ``sys.path`` with a distribution ``alpha-dist`` and its entry point ``alpha-parts``."""
    info = tmp_path / "alpha_dist-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: alpha-dist\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\nalpha-parts = alpha_test_parts\n")
    (tmp_path / "alpha_test_parts.py").write_text(objective("alpha-loss"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "alpha_test_parts", raising=False)
    return tmp_path
