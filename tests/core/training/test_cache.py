"""Trained features kept between runs: reused when whole and fitting, otherwise left alone with a reason."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ebsc_core.data.features.store import FEATURES, FeatureTable, FeatureWriter
from ebsc_core.training.cache import TRAINING, Trained, TrainedCache
from ebsc_core.utils.errors import DataError
from ebsc_core.utils.hashing import digest
from ebsc_core.utils.manifest import MANIFEST

ROWS = 12
MADE_FROM = {"data": "abc", "backbone": {"name": "some"}}
COST = {"seconds": {"training": 12.5, "features": 0.5}, "peak_memory_mib": None}


def modules(width: int = 4) -> dict[str, nn.Module]:
    return {
        "backbone": nn.Linear(3, 4),
        "objective": nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width)),
    }


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    """Features in a file outside the cache, where a run has written them."""
    path = tmp_path / "run" / FEATURES
    path.parent.mkdir()
    with FeatureWriter(path, digest(MADE_FROM), MADE_FROM) as writer:
        writer.append(FeatureTable(torch.randn(ROWS, 4), torch.randn(ROWS, 2)))
    return Trained(path, [{"epoch": 1, "loss": 0.5}], "fp32", ["it was cold"], COST)


def weights(parts: dict[str, nn.Module]) -> list[Tensor]:
    return [value.clone() for part in parts.values() for value in part.state_dict().values()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.fixture
def cache(tmp_path: Path) -> TrainedCache:
    return TrainedCache(tmp_path / "deep" / "cache")


@pytest.fixture
def entry(cache: TrainedCache, trained: Trained) -> Path:
    """The folder of one stored entry."""
    cache.store(MADE_FROM, modules(), trained)
    assert cache.folder is not None
    return cache.folder / digest(MADE_FROM)


def test_what_is_stored_is_loaded(cache: TrainedCache, trained: Trained) -> None:
    parts, others = modules(), modules()
    cache.store(MADE_FROM, parts, trained)
    assert not same(weights(parts), weights(others))
    loaded, reason = cache.load(MADE_FROM, others, ROWS, "fp32")
    assert reason == ""
    assert loaded is not None
    assert loaded.features != trained.features  # a copy of its own
    assert loaded.features.read_bytes() == trained.features.read_bytes()
    assert (loaded.history, loaded.precision, loaded.warnings) == (trained.history, "fp32", ["it was cold"])
    assert loaded.cost == COST  # what the making took, not the loading
    assert same(weights(parts), weights(others))


def test_something_made_from_else_is_simply_not_there(cache: TrainedCache, entry: Path) -> None:
    assert cache.load({**MADE_FROM, "data": "other"}, modules(), ROWS, "auto") == (None, "")


def test_without_a_folder_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Trained
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    cache = TrainedCache(None)
    cache.store(MADE_FROM, modules(), trained)
    assert cache.load(MADE_FROM, modules(), ROWS, "auto") == (None, "")
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize("asked", ["auto", "any", "fp32"])
def test_precision_asked_for_or_left_open_is_reused(cache: TrainedCache, entry: Path, asked: str) -> None:
    assert cache.load(MADE_FROM, modules(), ROWS, asked)[0] is not None


def test_another_precision_is_not_reused(cache: TrainedCache, entry: Path) -> None:
    loaded, reason = cache.load(MADE_FROM, modules(), ROWS, "bf16")
    assert loaded is None
    assert "fp32" in reason
    assert "bf16" in reason


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", [FEATURES, TRAINING, "backbone.safetensors", "objective.safetensors"])
@pytest.mark.parametrize("damage", [truncate, Path.unlink], ids=["truncated", "missing"])
def test_a_damaged_entry_is_not_used_and_modules_stay_as_they_were(
    cache: TrainedCache, entry: Path, name: str, damage: object
) -> None:
    assert callable(damage)
    damage(entry / name)
    parts = modules()
    before = weights(parts)
    loaded, reason = cache.load(MADE_FROM, parts, ROWS, "auto")
    assert loaded is None
    assert str(entry / name) in reason
    assert "\n" not in reason
    assert same(before, weights(parts))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"precision": "fp32"}',
        '{"history": [], "precision": "fp32", "warnings": []}',  # of the version before costs were kept
        '{"history": [], "precision": "fp32", "warnings": [], "cost": 3}',
        '{"history": [], "precision": "fp32", "warnings": [], "cost": {}, "more": 1}',
        "\xff",
    ],
)
def test_a_broken_training_record_is_named(cache: TrainedCache, entry: Path, content: str) -> None:
    (entry / TRAINING).write_text(content, encoding="latin-1")
    loaded, reason = cache.load(MADE_FROM, modules(), ROWS, "auto")
    assert loaded is None
    assert str(entry / TRAINING) in reason


def test_weights_of_another_architecture_are_not_used(cache: TrainedCache, entry: Path) -> None:
    parts = modules(width=5)
    before = weights(parts)
    loaded, reason = cache.load(MADE_FROM, parts, ROWS, "auto")
    assert loaded is None
    assert "objective.safetensors" in reason
    assert same(before, weights(parts))


def test_features_under_anothers_key_are_not_used(cache: TrainedCache, entry: Path) -> None:
    other = {**MADE_FROM, "data": "other"}
    shutil.copytree(entry, entry.with_name(digest(other)))
    loaded, reason = cache.load(other, modules(), ROWS, "auto")
    assert loaded is None
    assert "other data or options" in reason


@pytest.mark.parametrize("name", ["features", "embeddings"])
def test_rows_are_read_only_where_no_manifest_proves_them(
    cache: TrainedCache, entry: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    read: list[str] = []
    real = h5py.Dataset.__getitem__
    monkeypatch.setattr(
        h5py.Dataset, "__getitem__", lambda rows, at: read.append(rows.name) or real(rows, at)
    )
    assert cache.load(MADE_FROM, modules(), ROWS, "auto")[0] is not None
    assert read == []
    assert cache.load(MADE_FROM, modules(), ROWS + 1, "auto")[0] is None
    (entry / MANIFEST).unlink()
    with h5py.File(entry / FEATURES, "r+") as file:
        file[name][3] = np.nan
    loaded, reason = cache.load(MADE_FROM, modules(), ROWS, "auto")
    assert loaded is None
    assert "finite" in reason


def test_storing_replaces_a_damaged_entry_and_leaves_nothing_else(
    cache: TrainedCache, entry: Path, trained: Trained
) -> None:
    truncate(entry / FEATURES)
    (entry / "stray.txt").write_text("x")
    cache.store(MADE_FROM, modules(), trained)
    assert cache.load(MADE_FROM, modules(), ROWS, "auto")[0] is not None
    assert sorted(file.name for file in entry.iterdir()) == [
        "backbone.safetensors",
        FEATURES,
        MANIFEST,
        "objective.safetensors",
        TRAINING,
    ]
    assert list(entry.parent.iterdir()) == [entry]


def test_a_stored_entry_has_the_permissions_of_the_user(
    cache: TrainedCache, trained: Trained, tmp_path: Path
) -> None:
    """Others who share the folder can read it, unless the user's mask says otherwise."""
    before = os.umask(0o022)
    try:
        (tmp_path / "plain").mkdir()
        cache.store(MADE_FROM, modules(), trained)
    finally:
        os.umask(before)
    assert cache.folder is not None
    entry = cache.folder / digest(MADE_FROM)
    assert entry.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in entry.iterdir())


def test_an_entry_that_another_user_has_closed_is_not_used(
    cache: TrainedCache, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat

    def stat(path: object, *args: object, **kwargs: object) -> os.stat_result:
        if entry in Path(str(path)).parents:  # root may read everything, so this is how it is for others
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *args, **kwargs)

    cache.mark()
    monkeypatch.setattr(os, "stat", stat)
    loaded, reason = cache.load(MADE_FROM, modules(), ROWS, "auto")
    assert loaded is None
    assert "cannot be used" in reason
    assert "Permission denied" in reason
    assert cache.keep_within_limit(MADE_FROM) == ""


def test_failed_storing_keeps_the_earlier_entry(
    cache: TrainedCache, entry: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise DataError("disk full")

    monkeypatch.setattr("ebsc_core.training.cache.save_weights", fail)
    with pytest.raises(DataError, match="disk full"):
        cache.store(MADE_FROM, modules(), trained)
    assert list(entry.parent.iterdir()) == [entry]
    assert cache.load(MADE_FROM, modules(), ROWS, "auto")[0] is not None


def test_the_training_record_is_plain_json(entry: Path) -> None:
    record = json.loads((entry / TRAINING).read_text(encoding="utf-8"))
    assert record["history"] == [{"epoch": 1, "loss": 0.5}]
