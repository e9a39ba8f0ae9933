"""``ebsc cache``, and the limit of the cache in a run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ebsc_core.utils.cached_entries import CHECKPOINT_SUFFIX, LIMIT, TRAINING
from ebsc_core.utils.paths import mark_cache

Ebsc = Callable[..., tuple[int, str, str]]
DAY = 86400.0
UNTRAINED = ("run", "--backbone", "pca", "--epochs", "0", "--limit", "100", "--coefficients", "knn", "-q")


@pytest.fixture
def cache() -> Path:
    """The user's cache: features of two trainings, and a checkpoint."""
    folder = Path(os.environ["EBSC_CACHE_DIR"]) / "features"
    mark_cache(folder)
    for number, days in ((1, 1), (2, 40)):
        entry = folder / f"{number:024x}"
        entry.mkdir()
        (entry / TRAINING).write_bytes(bytes(5000))
        os.utime(entry, (time.time() - days * DAY,) * 2)
    state = folder / f"{3:024x}{CHECKPOINT_SUFFIX}"
    state.write_bytes(bytes(700))
    os.utime(state, (time.time() - 50 * DAY,) * 2)
    return folder


def kept(cache: Path) -> list[int]:
    return sorted(int(path.name[:24], 16) for path in cache.iterdir() if path.name[0] == "0")


def test_shows_what_is_there_how_large_and_where(ebsc: Ebsc, cache: Path) -> None:
    code, out, _ = ebsc("cache")
    assert code == 0
    (features,) = [line for line in out.splitlines() if "trained features" in line]
    (states,) = [line for line in out.splitlines() if "checkpoints" in line]
    assert "2 │ 10.0 KB" in features
    assert "1 │   700 B" in states
    assert f"features: {cache}" in out
    assert f"limit: none; {LIMIT}=20GB in the environment sets one" in out


def test_shows_named_data_sets_which_it_leaves(ebsc: Ebsc, cache: Path) -> None:
    data = cache.parent / "data"
    data.mkdir()
    (data / "some.bin").write_bytes(bytes(2000))
    assert "2.0 KB" in ebsc("cache").out
    ebsc("cache", "clear")
    assert (data / "some.bin").is_file()


def test_clear_removes_features_and_keeps_checkpoints(ebsc: Ebsc, cache: Path) -> None:
    _, out, _ = ebsc("cache", "clear")
    assert kept(cache) == [3]
    assert "removed 10.0 KB: the features of 2 trainings" in out
    assert "1 checkpoints stay" in out


def test_clear_removes_what_was_not_used_for_so_long(ebsc: Ebsc, cache: Path) -> None:
    _, out, _ = ebsc("cache", "clear", "--older-than", "45d")
    assert kept(cache) == [1, 2]
    assert "removed 700 B" in out
    ebsc("cache", "clear", "--older-than", "2w")
    assert kept(cache) == [1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["clean"], "ebsc cache has no action 'clean'"),
        (["--older-than", "30d"], "--older-than is for `ebsc cache clear`"),
        (["clear", "--older-than", "soon"], "'soon' is no age; write hours, days, weeks or years, e.g. 12h"),
        (["clear", "--older-than", "30m"], "'30m' is no age; write hours, days, weeks or years"),
        (["clear", "--older-than", ""], "'' is no age"),
        (["--older-than", ""], "--older-than is for `ebsc cache clear`"),
        (["--cache", "none"], "keeps nothing"),
        (["clear", "--cache", ""], "--cache is empty"),
        (["clear", "--cache", "."], ". is not a cache that ebsc has made"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_removed(
    ebsc: Ebsc, cache: Path, words: list[str], said: str
) -> None:
    code, _, err = ebsc("cache", *words)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert kept(cache) == [1, 2, 3]


def test_a_run_removes_what_was_used_least_recently(
    ebsc: Ebsc, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT, "30KB")
    assert ebsc(*UNTRAINED).code == 0
    names = {path.name for path in cache.iterdir() if path.is_dir()}
    assert f"{2:024x}" not in names
    assert len(names - {f"{1:024x}"}) == 1, "its own features stay"


def test_a_limit_that_is_no_size_is_said_before_any_work(
    ebsc: Ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT, "much")
    code, _, err = ebsc(*UNTRAINED, "--out", "run")
    assert code == 2
    assert f"{LIMIT} is 'much', which is no size" in err
    assert not (tmp_path / "run").exists()
