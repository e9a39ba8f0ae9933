"""An extraction that was interrupted goes on where it was."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ebsc_core.config.schema import FeaturesChoice
from ebsc_core.data.features.files import read_features
from ebsc_core.data.features.store import FeatureTable, FeatureWriter
from ebsc_core.training import extract, kept_blocks
from ebsc_core.training.checkpoint import CheckpointStore
from ebsc_core.training.kept_blocks import KeptBlocks
from ebsc_core.utils.cached_entries import entries_of, remove_entries
from ebsc_core.utils.progress import Progress
from ebsc_plugins.backbones import identity

Ebsc = Callable[..., Any]
KEY = "0123456789abcdef01234567"
ROWS = torch.arange(14.0)[:, None].expand(-1, 3).contiguous()
EXTRACT = ("features", "extract", "digits", "--backbone", "identity", "--limit", "50", "-o")


@pytest.fixture
def kept(tmp_path: Path) -> KeptBlocks:
    return KeptBlocks(tmp_path / "cache", KEY, Progress())


def again(kept: KeptBlocks) -> KeptBlocks:
    """What another process sees."""
    return KeptBlocks(kept.folder, KEY, Progress())


def blocks(fails_at: int | None = None, begun: list[int] | None = None) -> Callable[..., Iterator]:
    """An extraction of all rows in blocks of four, with embeddings."""

    def extract_from(first: int) -> Iterator[FeatureTable]:
        if begun is not None:
            begun.append(first)
        for at in range(first, len(ROWS), 4):
            if at == fails_at:
                raise KeyboardInterrupt
            yield FeatureTable(ROWS[at : at + 4], -ROWS[at : at + 4])

    return extract_from


def rows(tables: list[FeatureTable]) -> torch.Tensor:
    embeddings = [table.embeddings for table in tables if table.embeddings is not None]
    features = torch.cat([table.features for table in tables])
    assert torch.equal(torch.cat(embeddings), -features)
    return features


@pytest.mark.parametrize("every", [0.0, 60.0])
@pytest.mark.parametrize("fails_at", [0, 4, 8, 12])
def test_what_was_extracted_is_not_extracted_again(
    kept: KeptBlocks, monkeypatch: pytest.MonkeyPatch, fails_at: int, every: float
) -> None:
    monkeypatch.setattr(kept_blocks, "EVERY", every)
    with pytest.raises(KeyboardInterrupt):
        list(kept.resumed(blocks(fails_at)))
    assert kept.begin.exists() == (fails_at > 0)
    begun: list[int] = []
    assert torch.equal(rows(list(again(kept).resumed(blocks(begun=begun)))), ROWS)
    assert begun == [fails_at]


def test_it_may_be_interrupted_several_times_and_leaves_nothing(kept: KeptBlocks) -> None:
    for at in (4, 12):
        with pytest.raises(KeyboardInterrupt):
            list(again(kept).resumed(blocks(at)))
    (entry,) = entries_of(kept.folder)
    assert entry.is_checkpoint
    last = again(kept)
    assert torch.equal(rows(list(last.resumed(blocks()))), ROWS)
    last.remove()
    assert not entries_of(kept.folder)


def test_what_its_reader_has_not_written_is_kept_too(kept: KeptBlocks) -> None:
    tables = kept.resumed(blocks())
    next(tables)
    next(tables)
    tables.close()
    begun: list[int] = []
    list(again(kept).resumed(blocks(begun=begun)))
    assert begun == [8]


def test_rows_are_kept_before_anything_ends(kept: KeptBlocks, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a kill, which nothing can catch, loses what came since the last time."""
    monkeypatch.setattr(kept_blocks, "EVERY", 0.0)
    tables = kept.resumed(blocks())
    next(tables)
    next(tables)
    begun: list[int] = []
    assert torch.equal(rows(list(again(kept).resumed(blocks(begun=begun)))), ROWS)
    assert begun == [8]


def test_rows_that_are_read_again_count_as_in_use(kept: KeptBlocks) -> None:
    with pytest.raises(KeyboardInterrupt):
        list(kept.resumed(blocks(8)))
    os.utime(kept.begin, (0, 0))
    next(again(kept).resumed(blocks()))
    assert list(remove_entries(entries_of(kept.folder))) == []
    assert kept.begin.exists()


def test_rows_that_are_not_finite_are_not_kept(
    ebsc: Ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the same error would come back, whatever was mended."""
    monkeypatch.setattr(extract, "BATCH", 10)
    real = identity.Identity.forward

    def forward(self: identity.Identity, images: torch.Tensor) -> torch.Tensor:
        rows = real(self, images)
        calls.append(len(rows))
        return rows * (torch.nan if len(calls) == 3 else 1)

    calls = list[int]()
    monkeypatch.setattr(identity.Identity, "forward", forward)
    failed = ebsc(*EXTRACT, "f.h5")
    assert failed.code == 2
    assert "the backbone's features are not finite" in failed.err
    done = ebsc(*EXTRACT, "f.h5")
    assert done.code == 0, done.err
    assert "20 images were extracted before" in done.out
    (rows,) = read_features(FeaturesChoice(path=str(tmp_path / "f.h5"))).blocks()
    assert len(rows) == 50
    assert rows.isfinite().all()


def test_from_a_damaged_file_on_rows_are_extracted_anew(kept: KeptBlocks) -> None:
    for at in (4, 12):
        with pytest.raises(KeyboardInterrupt):
            list(again(kept).resumed(blocks(at)))
    second = sorted(kept.folder.glob(f"{KEY}*"))[1]
    content = bytearray(second.read_bytes())
    content[-5] ^= 255
    second.write_bytes(content)
    last, begun = again(kept), list[int]()
    assert torch.equal(rows(list(last.resumed(blocks(begun=begun)))), ROWS)
    assert begun == [4]
    (warning,) = last.progress.warnings
    assert "from number 4 on" in warning
    assert "checksum" in warning


def test_a_file_without_rows_is_not_read_for_ever(kept: KeptBlocks) -> None:
    CheckpointStore(kept.begin).save(({"features": ROWS[:0], "embeddings": ROWS[:0]}, {}))
    last = again(kept)
    assert torch.equal(rows(list(last.resumed(blocks()))), ROWS)
    assert "holds no rows" in last.progress.warnings[0]


def test_an_extraction_whose_last_block_could_not_be_written_has_nothing_left_to_do(
    ebsc: Ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, appended = FeatureWriter.append, list[int]()

    def append(self: FeatureWriter, table: FeatureTable) -> None:
        appended.append(len(table.features))
        if len(appended) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, table)

    monkeypatch.setattr(FeatureWriter, "append", append)
    assert ebsc(*EXTRACT, "f.h5").code == 2
    done = ebsc(*EXTRACT, "f.h5")
    assert done.code == 0, done.err
    assert "50 images were extracted before" in done.out
    (rows,) = read_features(FeaturesChoice(path=str(tmp_path / "f.h5"))).blocks()
    assert len(rows) == 50


def test_a_disk_that_takes_no_more_ends_nothing(kept: KeptBlocks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_blocks, "EVERY", 0.0)
    kept.folder.parent.mkdir(exist_ok=True)
    kept.folder.write_text("a file, where the folder would be")
    assert torch.equal(rows(list(kept.resumed(blocks()))), ROWS)
    (warning,) = kept.progress.warnings
    assert "the extraction is not kept" in warning
    assert not kept.held  # what cannot be written must not pile up in memory


@pytest.fixture
def fails_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ctrl-C in the fourth block of ten images; the number of images in each call of the backbone."""
    monkeypatch.setattr(extract, "BATCH", 10)
    real, seen = identity.Identity.forward, list[int]()

    def forward(self: identity.Identity, images: torch.Tensor) -> torch.Tensor:
        if len(seen) == 3:
            seen.append(0)
            raise KeyboardInterrupt
        seen.append(len(images))
        return real(self, images)

    monkeypatch.setattr(identity.Identity, "forward", forward)
    return seen


def test_features_extract_goes_on_and_writes_the_same_file(
    ebsc: Ebsc, tmp_path: Path, fails_once: list[int]
) -> None:
    code, _, err = ebsc(*EXTRACT, str(tmp_path / "f.h5"))
    assert code == 130
    assert "30 of 50 images are kept, the same command goes on" in err
    assert not (tmp_path / "f.h5").exists()
    code, out, err = ebsc(*EXTRACT, str(tmp_path / "f.h5"))
    assert code == 0, err
    assert "30 images were extracted before" in out
    assert fails_once == [10, 10, 10, 0, 10, 10]
    assert ebsc(*EXTRACT, str(tmp_path / "whole.h5")).code == 0
    assert fails_once[6:] == [10] * 5  # nothing is kept of an extraction that is complete
    files = [read_features(FeaturesChoice(path=str(tmp_path / name))) for name in ("f.h5", "whole.h5")]
    assert torch.equal(*(torch.cat(list(source.blocks())) for source in files))


def test_a_run_goes_on_with_its_extraction(
    ebsc: Ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_once: list[int]
) -> None:
    real = identity.Identity.forward

    def slow(self: identity.Identity, images: torch.Tensor) -> torch.Tensor:
        time.sleep(0.2 if len(fails_once) < 3 else 0)
        return real(self, images)

    monkeypatch.setattr(identity.Identity, "forward", slow)
    run = ("run", "--backbone", "identity", "--epochs", "0", "--limit", "50", "--coefficients", "knn")
    code, _, err = ebsc(*run, "--out", str(tmp_path / "run"), "--no-report")
    assert code == 130
    assert "ebsc resume" in err
    code, out, err = ebsc("resume", str(tmp_path / "run"))
    assert code == 0, err
    assert "30 images were extracted before" in out
    assert fails_once == [10, 10, 10, 0, 10, 10]
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["features_cost"]["seconds"]["features"] >= 3 * 0.2  # of the first try, too
