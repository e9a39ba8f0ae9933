from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ebsc_core.utils.errors import ConfigError
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


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home folder and without an entry, as in some containers."""
    pwd = pytest.importorskip("pwd")

    def unknown(*_: object) -> None:
        raise KeyError("uid not found")

    for name in ("HOME", "XDG_CACHE_HOME", "EBSC_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_folder_the_cache_has_to_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="set EBSC_CACHE_DIR"):
        user_cache()
    monkeypatch.setenv("EBSC_CACHE_DIR", str(tmp_path))
    assert user_cache() == tmp_path


@pytest.mark.usefixtures("homeless")
def test_commands_run_without_a_home_folder_or_say_what_they_need(
    ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 5)))
    cluster = ("cluster", "x.npy", "--n-clusters", "2", "--coefficients", "knn", "-q", "--out", "run")
    done = ebsc(*cluster)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "set EBSC_CACHE_DIR" in done.err
    monkeypatch.setenv("EBSC_CACHE_DIR", str(tmp_path / "cache"))
    assert ebsc(*cluster).code == 0
    for name in ("~/x", "~no_such_user/x"):  # stays what it is
        for words in (("run", "--data", name), ("cluster", f"{name}.npy"), ("predict", "run", f"{name}.npy")):
            done = ebsc(*words, *(("-o", "new.csv") if words[0] == "predict" else ()))
            assert (done.code, done.err.count("\n")) == (2, 1), done.err
            assert name in done.err
