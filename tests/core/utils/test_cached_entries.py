"""What the cache holds, and what leaves it."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from ebsc_core.utils.cached_entries import (
    CHECKPOINT_SUFFIX,
    LIMIT,
    RECENT_SECONDS,
    TRAINING,
    cache_limit,
    entries_of,
    in_bytes,
    remove_entries,
    shrink,
)
from ebsc_core.utils.errors import ConfigError, DataError
from ebsc_core.utils.files import lock
from ebsc_core.utils.paths import mark_cache

HOUR = 3600.0


def key(number: int) -> str:
    return f"{number:024x}"


def aged(path: Path, hours: float) -> Path:
    then = time.time() - hours * HOUR
    os.utime(path, (then, then))
    return path


def features(folder: Path, number: int, hours: float, size: int = 1000) -> Path:
    entry = folder / key(number)
    entry.mkdir()
    (entry / TRAINING).write_bytes(b"{}")
    (entry / "features.h5").write_bytes(bytes(size - 2))
    return aged(entry, hours)


def checkpoint(folder: Path, number: int, hours: float, first: str = "") -> Path:
    path = folder / f"{key(number)}{first}{CHECKPOINT_SUFFIX}"
    path.write_bytes(bytes(500))
    return aged(path, hours)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    mark_cache(folder)
    return folder


def test_entries_come_with_size_and_age_the_oldest_first(cache: Path) -> None:
    new, old, state = features(cache, 1, 2), features(cache, 2, 9), checkpoint(cache, 3, 5)
    found = entries_of(cache)
    assert [entry.path for entry in found] == [old, state, new]
    assert [entry.size for entry in found] == [1000, 500, 1000]
    assert [entry.is_checkpoint for entry in found] == [False, True, False]


def test_what_ebsc_has_not_written_is_no_entry_and_stays(cache: Path, tmp_path: Path) -> None:
    mine = features(tmp_path, 9, 99)
    (cache / key(1)).symlink_to(mine)
    (cache / key(2)).mkdir()  # without a record
    (cache / "notes.txt").write_text("mine")
    (cache / f"notes{CHECKPOINT_SUFFIX}").write_text("mine")
    (cache / key(3)).write_text("a file")
    before = sorted(cache.iterdir())
    assert entries_of(cache) == []
    assert shrink(cache, 0) == []
    assert sorted(cache.iterdir()) == before


def test_what_another_user_has_closed_is_no_entry(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed, mine = features(cache, 1, 9), features(cache, 2, 8)
    real = os.stat

    def stat(path: object, *args: object, **kwargs: object) -> os.stat_result:
        if closed in Path(str(path)).parents:  # root may read everything, so this is how it is for others
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(PermissionError):
        (closed / TRAINING).is_file()
    assert [entry.path for entry in entries_of(cache)] == [mine]
    assert [entry.path for entry in shrink(cache, 0)] == [mine]
    assert closed.is_dir()


def test_a_folder_without_the_mark_is_not_touched(tmp_path: Path) -> None:
    features(tmp_path, 1, 99)
    with pytest.raises(DataError, match="not a cache that ebsc has made"):
        shrink(tmp_path, 0)
    assert (tmp_path / key(1)).is_dir()


def test_a_limit_removes_the_least_recently_used_and_no_more(cache: Path) -> None:
    oldest, older, new = features(cache, 1, 9), features(cache, 2, 8), features(cache, 3, 7)
    assert [entry.path for entry in shrink(cache, 1500)] == [oldest, older]
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [new.name]
    assert shrink(cache, 1500) == []


def test_a_limit_spares_the_entry_just_written_and_checkpoints(cache: Path) -> None:
    written, state, other = features(cache, 1, 9), checkpoint(cache, 2, 9), features(cache, 3, 1)
    assert [entry.path for entry in shrink(cache, 10, keep=written.name)] == [other]
    assert written.is_dir()
    assert state.is_file()


def test_what_another_command_reads_stays(cache: Path) -> None:
    used, other = features(cache, 1, 9), features(cache, 2, 8)
    with (used / TRAINING).open("rb") as file:
        assert lock(file, shared=True)
        assert [entry.path for entry in shrink(cache, 0)] == [other]
        assert list(remove_entries(entries_of(cache))) == []
    assert [entry.path for entry in remove_entries(entries_of(cache))] == [used]
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_a_checkpoint_that_training_may_still_renew_stays(cache: Path) -> None:
    fresh = checkpoint(cache, 1, 0.5 * RECENT_SECONDS / HOUR)
    stale = checkpoint(cache, 2, 2 * RECENT_SECONDS / HOUR)
    assert [entry.path for entry in remove_entries(entries_of(cache))] == [stale]
    assert fresh.is_file()


def test_the_rows_of_one_extraction_are_one_entry(cache: Path) -> None:
    """Without its first rows, nothing of it could be used."""
    old, new = (
        checkpoint(cache, 1, hours, first) for hours, first in ((9, f".{0:012}"), (0.1, f".{20:012}"))
    )
    (entry,) = entries_of(cache)
    assert (entry.path, entry.size) == (old, 1000)
    assert list(remove_entries([entry])) == []
    aged(new, 8)
    assert [entry.path for entry in remove_entries(entries_of(cache))] == [old]
    assert not old.exists()
    assert not new.exists()


def test_checkpoints_do_not_count_against_the_limit(cache: Path) -> None:
    checkpoint(cache, 1, 9)
    kept = features(cache, 2, 8)
    assert shrink(cache, 1000) == []
    assert kept.is_dir()


@pytest.mark.parametrize(
    "name", [".{}.abc", f".{{}}{CHECKPOINT_SUFFIX}.77", f".{{}}.{0:012}{CHECKPOINT_SUFFIX}.7"]
)
@pytest.mark.parametrize("is_folder", [True, False])
def test_what_a_killed_command_has_left_goes_later(cache: Path, name: str, is_folder: bool) -> None:
    old, new = (cache / name.format(key(number)) for number in (1, 2))
    for remains in (old, new):
        if is_folder:
            remains.mkdir()
        (remains / "features.h5" if is_folder else remains).write_bytes(bytes(10))
    aged(old, 2)
    assert [entry.path for entry in remove_entries(entries_of(cache))] == [old]
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("", None),
        ("none", None),
        ("20GB", 20 * 10**9),
        ("1.5 tb", 15 * 10**11),
        ("500M", 5 * 10**8),
        ("0", 0),
    ],
)
def test_a_limit_is_a_size(monkeypatch: pytest.MonkeyPatch, text: str, size: int | None) -> None:
    monkeypatch.setenv(LIMIT, text)
    assert cache_limit() == size


@pytest.mark.parametrize("text", ["much", "-3GB", "GB", "20 apples", "3..5GB"])
def test_another_limit_is_an_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(LIMIT, text)
    with pytest.raises(ConfigError, match=r"no size; write for instance 20GB"):
        cache_limit()


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 KB"), (3_400_000_000, "3.4 GB")]
)
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert in_bytes(size) == text
