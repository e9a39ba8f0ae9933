"""Copies are found, whatever was done to them, and nothing else is."""

from __future__ import annotations

import csv
import shutil
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ebsc_core.curation import finding
from ebsc_core.curation.contact_sheet import SIDE
from ebsc_core.curation.picture_of_pairs import LINE, MARGIN

QUICK = (
    "--backbone",
    "identity",
    "--epochs",
    "0",
    "--coefficients",
    "knn",
    "--n-clusters",
    "3",
    "--out",
    "run",
)


def table(path: Path) -> dict[str, list[tuple[str, str, float]]]:
    """Read the groups: image, kind and similarity of each member."""
    groups = defaultdict(list)
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            groups[line["group"]].append((line["image"], line["kind"], float(line["similarity"])))
    return dict(groups)


def named(path: Path) -> list[list[tuple[str, str]]]:
    return sorted([(image, kind) for image, kind, _ in group] for group in table(path).values())


def with_copies(folder: Path) -> list[list[tuple[str, str]]]:
    """Add copies of all kinds; return the groups that should be found."""

    def opened(number: int) -> Image.Image:
        return Image.open(folder / f"{number:03}.png")

    shutil.copy(folder / "003.png", folder / "again.png")
    opened(3).save(folder / "third.bmp")
    opened(7).resize((96, 96), Image.Resampling.BICUBIC).save(folder / "larger.png")
    opened(11).resize((30, 30)).save(folder / "smaller.png")
    opened(13).save(folder / "recompressed.jpg", quality=50)
    opened(17).crop((0, 2, 46, 48)).save(folder / "cropped.png")
    return sorted(
        [
            [("third.bmp", "keep"), ("003.png", "exact"), ("again.png", "exact")],
            [("larger.png", "keep"), ("007.png", "near")],
            [("011.png", "keep"), ("smaller.png", "near")],
            [("013.png", "keep"), ("recompressed.jpg", "near")],
            [("017.png", "keep"), ("cropped.png", "near")],
        ]
    )


def test_a_link_is_never_kept_in_place_of_its_file(ebsc, tmp_path: Path, photos) -> None:
    folder = photos()
    (folder / "000-link.png").symlink_to("003.png")
    (folder / "all").mkdir()
    for number in (7, 11):
        (folder / f"{number:03}.png").rename(folder / "all" / f"{number:03}.png")
    (folder / "Again").symlink_to("all")
    assert ebsc("duplicates", folder, "-o", "d.csv").code == 0
    assert named(tmp_path / "d.csv") == [
        [("003.png", "keep"), ("000-link.png", "exact")],
        [("all/007.png", "keep"), ("Again/007.png", "exact")],
        [("all/011.png", "keep"), ("Again/011.png", "exact")],
    ]


def test_copies_in_a_folder_are_found(ebsc, tmp_path: Path, photos) -> None:
    folder = photos()
    expected = with_copies(folder)
    done = ebsc("duplicates", folder, "-o", "d.csv")
    assert done.code == 0, done.err
    assert named(tmp_path / "d.csv") == expected
    assert "66 images: 2 exact and 4 near duplicates in 5 groups" in done.out
    for group in table(tmp_path / "d.csv").values():
        assert group[0][2] == 1
        assert all((kind == "near") == (similarity < 1) for _, kind, similarity in group[1:])


def test_and_in_a_zip_and_in_a_run(ebsc, tmp_path: Path, photos) -> None:
    folder = photos()
    expected = with_copies(folder)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    assert ebsc("duplicates", "photos.zip", "-o", "zip.csv").code == 0
    assert named(tmp_path / "zip.csv") == expected
    assert ebsc("run", "--data", folder, *QUICK).code == 0
    assert ebsc("duplicates", "run", "-o", "run.csv").code == 0
    assert named(tmp_path / "run.csv") == expected


def test_the_terminal_says_how_many_groups_it_leaves_out(ebsc, photos) -> None:
    folder = photos()
    for number in range(7):
        shutil.copy(folder / f"{number:03}.png", folder / f"again-{number}.png")
    done = ebsc("duplicates", folder)
    assert "in 7 groups" in done.out
    assert done.out.endswith("  and 2 more groups; -o FILE.csv writes all\n")
    assert (
        "  and 2 more groups; the table has all\n-> d.csv\n" in ebsc("duplicates", folder, "-o", "d.csv").out
    )


def test_different_images_are_no_duplicates(ebsc, tmp_path: Path, photos) -> None:
    done = ebsc("duplicates", photos(150), "-o", "d.csv")
    assert "150 images: 0 exact and 0 near duplicates in 0 groups" in done.out
    assert (tmp_path / "d.csv").read_text().splitlines() == ["group,image,kind,similarity"]


def test_single_colors_are_alike_only_if_they_are_equal(ebsc, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for number, level in enumerate((0, 60, 120, 120, 255)):
        Image.new("L", (20, 20), level).save(tmp_path / f"flat/{number}.png")
    assert ebsc("duplicates", "flat", "-o", "d.csv").code == 0
    assert named(tmp_path / "d.csv") == [[("2.png", "keep"), ("3.png", "exact")]]


def test_the_threshold_may_be_given_and_seen(ebsc, tmp_path: Path, photos) -> None:
    folder = photos()
    with_copies(folder)
    done = ebsc("duplicates", folder, "--threshold", "1", "-o", "d.csv", "--picture", "pairs.png")
    assert done.code == 0, done.err
    assert {kind for group in named(tmp_path / "d.csv") for _, kind in group} == {"keep", "exact"}
    assert "threshold 1.000" in done.out
    with Image.open(tmp_path / "pairs.png") as sheet:
        assert len(sheet.getcolors(1 << 20) or ()) > 1000
    (folder / "bad.png").write_bytes(b"no picture")  # nothing is read before the threshold is checked
    for wrong in ("0", "1.5"):
        refused = ebsc("duplicates", folder, "--threshold", wrong)
        assert refused.code == 2
        assert f"--threshold is {wrong}; give a similarity above 0 and at most 1" in refused.err


def test_a_picture_that_fails_does_not_cost_the_table(ebsc, tmp_path: Path, photos, monkeypatch) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    photos(12, 12)
    monkeypatch.setattr(Image.Image, "save", full)
    done = ebsc("duplicates", "photos", "-o", "d.csv", "--picture", "pairs.png")
    assert (done.code, (tmp_path / "d.csv").exists()) == (2, True)
    assert "cannot write pairs.png: No space left on device" in done.err


def test_pictures_of_pairs_keep_their_form(ebsc, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 200, (20, 10, 20, 3), np.uint8)
    np.savez(tmp_path / "wide.npz", images=images)
    done = ebsc("duplicates", "wide.npz", "--threshold", "1", "--picture", "pairs.png")
    assert done.code == 0, done.err
    left, top = MARGIN, 2 * (2 * MARGIN + LINE)  # the first picture below both titles: none is above
    with Image.open(tmp_path / "pairs.png") as sheet:
        first = np.asarray(sheet)[top : top + SIDE, left : left + SIDE]
    inked = (first < 250).any(axis=-1)
    assert (inked.any(axis=1).sum(), inked.any(axis=0).sum()) == (40, 80)
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    assert (rows[0] + rows[-1], columns[0] + columns[-1]) == (SIDE - 1, SIDE - 1)


def test_rows_without_images_are_compared_by_themselves(ebsc, tmp_path: Path, monkeypatch) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    rows[50], rows[60] = rows[10], rows[20] * (1 + 1e-4 * np.arange(16))
    np.save(tmp_path / "f.npy", rows)
    done = ebsc("cluster", "f.npy", "--n-clusters", "3", "--coefficients", "knn", "--out", "run")
    assert done.code == 0, done.err
    done = ebsc("duplicates", "run", "-o", "d.csv")
    assert "200 rows: 1 exact and 1 near duplicates" in done.out
    assert named(tmp_path / "d.csv") == [[("10", "keep"), ("50", "exact")], [("20", "keep"), ("60", "near")]]
    monkeypatch.setattr(finding, "duplicate_rows", None)  # nothing is searched for a picture of rows
    assert "--picture needs images" in ebsc("duplicates", "run", "--picture", "p.png", "-o", "e.csv").err


def test_of_few_rows_only_equal_ones_are_duplicates(ebsc, tmp_path: Path) -> None:
    """Rows of one cluster are often nearly parallel."""
    numbers = np.random.default_rng(0)
    rows = np.repeat(np.eye(3, 8), 13, axis=0) + 0.05 * numbers.normal(size=(39, 8))
    rows[20], rows[30] = rows[15], rows[25] * (1 + 1e-4 * np.arange(8))
    np.save(tmp_path / "f.npy", rows.astype(np.float32))
    assert ebsc("cluster", "f.npy", "--n-clusters", "3", "--coefficients", "knn", "--out", "run").code == 0
    assert "39 rows: 1 exact and 1 near duplicates" in ebsc("duplicates", "run").out


def test_equal_images_are_equal_in_all_pixels_of_their_files(ebsc, tmp_path: Path) -> None:
    """Images are compared in a smaller size, in which a changed pixel vanishes."""
    (folder := tmp_path / "photos").mkdir()
    numbers = np.random.default_rng(0)
    for at in range(8):
        pixels = numbers.integers(0, 256, (16, 16, 3), np.uint8).repeat(32, 0).repeat(32, 1)
        Image.fromarray(pixels).save(folder / f"{at}.png")
        Image.fromarray(pixels).save(folder / f"{at}-copy.png", compress_level=1)
        pixels[3, 5, 0] ^= 4
        Image.fromarray(pixels).save(folder / f"{at}-touched.png")
    done = ebsc("duplicates", folder, "-o", "d.csv", "--set", "data.size=32")
    assert done.code == 0, done.err
    kinds = {image: kind for group in named(tmp_path / "d.csv") for image, kind in group}
    assert "8 exact and 8 near duplicates in 8 groups" in done.out
    assert all(kinds[f"{at}-touched.png"] != "exact" for at in range(8))


def test_a_run_whose_images_are_gone_has_its_rows(ebsc, tmp_path: Path, photos) -> None:
    folder = photos()
    shutil.copy(folder / "003.png", folder / "again.png")
    assert ebsc("run", "--data", folder, *QUICK).code == 0
    folder.rename(tmp_path / "elsewhere")
    done = ebsc("duplicates", "run", "-o", "d.csv")
    assert done.code == 0, done.err
    assert "the rows alone are compared" in done.err
    assert named(tmp_path / "d.csv") == [[("003.png", "keep"), ("again.png", "exact")]]


def test_unreadable_images_are_left_out_in_both_ways(ebsc, photos) -> None:
    folder = photos(12, 12)
    (folder / "bad.png").write_bytes(b"no picture")
    assert ebsc("duplicates", folder).code == 2
    for words in (("--skip-bad-images",), ("--set", "data.skip_bad_images=true")):
        done = ebsc("duplicates", folder, *words)
        assert done.code == 0, done.err
        assert "12 images: " in done.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nothing-there",), "nothing-there"),
        (("photos", "--set", "train.epochs=3"), "'train.epochs' says nothing here"),
        (("run", "--data-root", "x"), "leave out the options of data"),
        (("photos", "--picture", "pairs.txt"), "no picture"),
        (("photos", "-o", "missing/d.csv"), "the folder of missing/d.csv is not there"),
        (("one",), "one image; give at least two"),
    ],
)
def test_a_mistake_is_one_line(ebsc, tmp_path: Path, photos, words: tuple[str, ...], said: str) -> None:
    folder = photos(12, 12)
    (tmp_path / "one").mkdir()
    shutil.copy(folder / "003.png", tmp_path / "one")
    assert ebsc("run", "--data", folder, *QUICK).code == 0
    before = sorted(tmp_path.rglob("*"))
    done = ebsc("duplicates", *words)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before
