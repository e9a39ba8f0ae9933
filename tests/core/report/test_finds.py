"""The page shows the outliers and duplicates that the commands list, and says so where it leaves them out."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ebsc_core.curation.outliers import UNMARKED
from ebsc_core.report import finds
from support.photographs import photographs

RUN = ("--n-clusters", "3", "--coefficients", "knn", "--out", "run")
QUICK = ("--backbone", "identity", "--epochs", "0", *RUN)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """60 different photographs, a grey one, and copies of twelve: ten of the first, one of each other.

    The copy of the last one is larger.
    """
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, pixels in enumerate(photographs(60, 48)):
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    Image.new("RGB", (48, 48), (128, 128, 128)).save(folder / "grey.png")
    for number in [0] * 10 + [*range(1, 11)]:
        shutil.copy(folder / f"{number:03}.png", folder / f"{number:03}-{len(list(folder.iterdir()))}.png")
    Image.open(folder / "011.png").resize((96, 96)).save(folder / "011-larger.png")
    return folder


def section(run: Path) -> str:
    """Return the part of the page that is on outliers and duplicates, on one line."""
    (found,) = re.findall(r'<section id="finds".*?</section>', (run / "report.html").read_text(), re.DOTALL)
    return " ".join(found.split())


def test_both_are_shown_as_the_commands_list_them(ebsc, tmp_path: Path, photos: Path) -> None:
    assert ebsc("run", "--data", photos, *QUICK).code == 0
    assert ebsc("name", "run", "1", "herbs & trees").code == 0
    assert ebsc("outliers", "run", "--top", "12", "-o", "o.csv").code == 0
    assert "20 exact and 1 near duplicates in 12 groups" in ebsc("duplicates", "run", "-o", "d.csv").out
    assert ebsc("report", "run").code == 0
    outliers, duplicates = section(tmp_path / "run").split("Duplicates</h3>")
    lines = (tmp_path / "o.csv").read_text().splitlines()[1:]
    listed = [line.split(",")[1] for line in lines if UNMARKED not in line]
    assert re.findall(r'"name">(.*?)<', outliers) == listed
    assert outliers.count("<img ") == len(listed) > 5
    assert "cluster 1 herbs &amp; trees" in outliers
    assert "as far as these neighbours from theirs" in outliers
    assert "<code>ebsc outliers run</code>" in outliers
    assert "20 exact and 1 near duplicates in 12 groups, of which the 8 largest are shown" in duplicates
    assert "<code>ebsc duplicates run -o duplicates.csv</code>" in duplicates
    first = [tuple(line.split(",")[1:3]) for line in (tmp_path / "d.csv").read_text().splitlines()[1:5]]
    assert re.findall(r'"name">(.*?)</span> <span class="why">(\w+)', duplicates)[:4] == first
    assert "and 7 more" in duplicates
    assert duplicates.count("keep</span>") == duplicates.count("<ul ") == 8
    assert duplicates.count("<img ") == 4 + 7 * 2


def test_rows_without_images(ebsc, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    rows[7] = rows[3]
    np.save(tmp_path / "rows.npy", rows)
    assert ebsc("cluster", "rows.npy", *RUN).code == 0
    assert ebsc("report", "run").code == 0
    text = section(tmp_path / "run")
    assert "1 exact and 0 near duplicates in 1 group." in text
    assert '<span class="name">7</span> <span class="why">exact, similarity 1.000</span>' in text
    assert "<img " not in text


def test_images_that_have_gone_leave_the_rows(ebsc, tmp_path: Path, photos: Path) -> None:
    assert ebsc("run", "--data", photos, *QUICK).code == 0
    photos.rename(tmp_path / "elsewhere")
    assert ebsc("report", "run").code == 0
    assert "The rows alone were compared" in section(tmp_path / "run")


def test_a_run_without_duplicates(ebsc, tmp_path: Path) -> None:
    assert ebsc("run", "--limit", "200", *QUICK).code == 0
    assert ebsc("report", "run").code == 0
    assert "None of the images is a duplicate of another" in section(tmp_path / "run")


@pytest.mark.parametrize("limit", ["MAX_IMAGES", "MAX_VALUES"])
def test_a_large_run_leaves_both_to_the_commands(
    ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    assert ebsc("run", "--limit", "100", *QUICK).code == 0
    monkeypatch.setattr(finds, limit, 99)
    monkeypatch.setattr(finds, "find_outliers", None)
    monkeypatch.setattr(finds, "find_in_run", None)
    assert ebsc("report", "run").code == 0
    text = section(tmp_path / "run")
    assert "too large" in text
    assert "<code>ebsc outliers run</code>" in text
    assert "<code>ebsc duplicates run</code>" in text


def test_slow_images_leave_the_duplicates_to_the_command(
    ebsc, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ebsc("run", "--data", photos, *QUICK).code == 0
    monkeypatch.setattr(finds, "TRIED_SECONDS", 0)
    monkeypatch.setattr(finds, "READ_SECONDS", 1e-9)
    assert ebsc("report", "run").code == 0
    text = section(tmp_path / "run")
    assert "reading all images would take more than" in text
    assert "<code>ebsc duplicates run</code> does it" in text
    assert "<img " in text


def test_a_damaged_image_leaves_the_other_pictures(
    ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ebsc_core.report.map.MAX_POINTS", 30)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, pixels in enumerate(photographs(150, 16)):
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    assert ebsc("run", "--data", folder, *QUICK, "--set", "data.stream=true").code == 0
    assert ebsc("report", "run").code == 0
    text = (tmp_path / "run" / "report.html").read_text()
    unseen = next(path for path in sorted(folder.iterdir()) if f'alt="{path.name},' not in text)
    unseen.write_bytes(unseen.read_bytes()[:60])
    assert ebsc("report", "run").code == 0
    assert "<img " in section(tmp_path / "run")
    assert "They were not looked for" in section(tmp_path / "run")
    assert unseen.name in section(tmp_path / "run").split("Duplicates</h3>")[1]
