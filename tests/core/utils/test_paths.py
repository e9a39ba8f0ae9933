from __future__ import annotations

from pathlib import Path

import pytest

from ebsc_core.utils.paths import user_cache


def test_user_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBSC_CACHE_DIR", str(tmp_path / "own"))
    assert user_cache() == tmp_path / "own"
    monkeypatch.delenv("EBSC_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert user_cache() == tmp_path / "xdg" / "ebsc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache() == tmp_path / ".cache" / "ebsc"
