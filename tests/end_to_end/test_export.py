"""``ebsc export``: folders, tables and annotations of runs on a folder, a zip, an array, and rows."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import zipfile
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from ebsc_core.curation.image_files import ImageFiles
from ebsc_core.runs.store.saved import SavedRun

QUICK = (
    "--backbone",
    "identity",
    "--epochs",
    "0",
    "--coefficients",
    "knn",
    "--cache",
    "none",
    "--out",
    "run",
)
THREE = ("--n-clusters", "3", "-q")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """30 images of three colors, in two folders that hold the same names."""
    generator = np.random.default_rng(0)
    for i in range(30):
        pixels = generator.integers(0, 60, (12, 16, 3), np.uint8)
        pixels[..., i % 3] += 150
        path = tmp_path / f"photos/{'ab'[i % 2]}/{i // 2:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "photos"


@pytest.fixture
def run(ebsc, photos: Path, tmp_path: Path) -> SavedRun:
    assert ebsc("run", "--data", "photos", *QUICK, *THREE).code == 0
    assert ebsc("name", "run", "1", "herbs").code == 0
    return SavedRun(tmp_path / "run")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_ranks_are_sorted_as_text_however_many_there_are(ebsc, run: SavedRun, monkeypatch) -> None:
    monkeypatch.setattr("ebsc_core.curation.folders.RANK_DIGITS", 1)  # 10 images in place of 1,000
    for kind, ascending in (("typical", -1), ("doubtful", 1)):
        assert ebsc("export", "run", "--out", kind, f"--{kind}", "10").code == 0
        for cluster in (0, 2):
            names = files(Path(kind, kind, str(cluster)))
            assert [int(name.partition("-")[0]) for name in names] == list(range(1, len(names) + 1))
            images = [name.partition("-")[2].replace("_", "/", 1) for name in names]
            sure = [ascending * run.assignments.confidence[run.assignments.ids.index(one)] for one in images]
            assert len(sure) == 10
            assert sure == sorted(sure)


def test_each_image_is_in_the_folder_of_its_cluster(ebsc, run: SavedRun, tmp_path: Path) -> None:
    flags = ("--typical", "2", "--doubtful", "3", "--sheets")
    done = ebsc("export", "run", "--out", "new", *flags)
    assert (done.code, done.err) == (0, "")
    assert "30 images linked -> new" in done.out
    found = run.assignments
    for name, cluster in zip(found.ids, found.clusters, strict=True):
        link = (
            tmp_path / "new/clusters" / ("herbs" if cluster == 1 else str(cluster)) / name.replace("/", "_")
        )
        assert link.is_symlink()
        assert link.resolve() == (tmp_path / "photos" / name).resolve()
    assert len(files(tmp_path / "new/clusters")) == 30
    assert len(files(tmp_path / "new/typical")) == 6
    doubtful = files(tmp_path / "new/doubtful/herbs")
    assert [name[:4] for name in doubtful] == ["001-", "002-", "003-"]
    least = [found.confidence[found.ids.index(name[4:].replace("_", "/", 1))] for name in doubtful]
    assert least == sorted(found.confidence[found.clusters == 1])[:3]
    assert files(tmp_path / "new/sheets") == ["0.png", "2.png", "herbs.png"]
    sheet = np.asarray(Image.open(tmp_path / "new/sheets/herbs.png"), float)
    colored = sheet[(sheet < 250).any(axis=-1)]
    pixels = Image.open(tmp_path / "photos" / found.ids[int(np.flatnonzero(found.clusters == 1)[0])])
    assert colored.mean(axis=0).argmax() == np.asarray(pixels, float).mean(axis=(0, 1)).argmax()


def test_copies_stay_when_the_images_go(ebsc, run: SavedRun, photos: Path, tmp_path: Path) -> None:
    assert ebsc("export", "run", "--out", "new", "--copy").code == 0
    content = {path.read_bytes() for path in photos.rglob("*.png")}
    shutil.rmtree(photos)
    assert {(tmp_path / "new" / name).read_bytes() for name in files(tmp_path / "new")} == content
    assert ebsc("export", "run", "--out", "other").code == 2


@pytest.mark.parametrize("kind", ["zip", "npz"])
def test_images_that_are_no_files_are_written(ebsc, photos: Path, tmp_path: Path, kind: str) -> None:
    if kind == "zip":
        shutil.make_archive("photos", "zip", photos)
    else:
        pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(photos.rglob("*.png"))])
        np.savez("photos.npz", images=pixels)
    assert ebsc("run", "--data", f"photos.{kind}", *QUICK, *THREE).code == 0
    for program in ("--fiftyone", "--label-studio"):
        done = ebsc("export", "run", program, "x.json")
        assert done.code == 2
        assert "give --out, too" in done.err
    done = ebsc("export", "run", "--out", "new", "--typical", "1", "--fiftyone", "x.json")
    assert done.code == 0, done.err
    assert "written as PNG files" in done.out
    written = files(tmp_path / "new/clusters")
    original = {np.asarray(Image.open(path)).tobytes() for path in photos.rglob("*.png")}
    assert {
        np.asarray(Image.open(tmp_path / "new/clusters" / name)).tobytes() for name in written
    } == original
    labels = json.loads((tmp_path / "x.json").read_text())["labels"]
    assert sorted(f"{name}.png" for name in labels) == written


def test_tables_hold_what_was_decided(ebsc, run: SavedRun, tmp_path: Path) -> None:
    for end in ("csv", "json", "parquet"):
        assert ebsc("export", "run", "--table", f"table.{end}", "--memberships", "--top", "2").code == 0
    with (tmp_path / "table.csv").open(newline="") as file:
        from_csv = list(csv.DictReader(file))
    from_json = json.loads((tmp_path / "table.json").read_text())
    from_parquet = pyarrow.parquet.read_table(tmp_path / "table.parquet").to_pylist()
    assert from_json == from_parquet
    expected = ["image", "cluster", "name", "confidence", "label", "share", "cluster_2", "share_2"]
    assert list(from_csv[0]) == list(from_json[0]) == expected
    for one, other, cluster in zip(from_csv, from_json, run.assignments.clusters.tolist(), strict=True):
        assert {key: "" if value is None else str(value) for key, value in other.items()} == one
        assert (other["cluster"], other["name"]) == (cluster, "herbs" if cluster == 1 else "")
        assert other["share"] >= (other["share_2"] or 0)


def test_the_files_of_the_folder_are_named_for_other_programs(ebsc, run: SavedRun, tmp_path: Path) -> None:
    done = ebsc("export", "run", "--fiftyone", "f.json", "--label-studio", "tasks.json")
    assert done.code == 0
    assert f"data_path={str(tmp_path / 'photos')!r}" in done.out
    assert f"DOCUMENT_ROOT={tmp_path}," in done.out
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert {task["data"]["image"].partition("?d=")[2] for task in tasks} == {
        f"photos/{name}" for name in run.assignments.ids
    }


def test_label_studio_is_started_where_the_tasks_look(
    ebsc, photos: Path, tmp_path: Path, monkeypatch
) -> None:
    """A folder with a blank in its path, given from within; and names that look like a setting."""
    (tmp_path / "my work/photos").parent.mkdir()
    photos.rename(tmp_path / "my work/photos")
    run = tmp_path / "my work/first run"
    run.mkdir()
    monkeypatch.chdir(run)
    assert ebsc("run", "--data", "../photos/a/..", *QUICK[:-1], ".", *THREE).code == 0
    assert ebsc("name", ".", "0", "`seed`").code == 0
    done = ebsc("export", ".", "--label-studio", "tasks.json")
    assert done.code == 0, done.err
    command = done.out.partition("start it with ")[2].partition(", add the local storage")[0]
    root = Path(
        dict(word.split("=") for word in shlex.split(command))["LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT"]
    )
    tasks = json.loads((run / "tasks.json").read_text())
    for task in tasks:
        assert (root / unquote(task["data"]["image"].partition("?d=")[2])).is_file()
        assert ".." not in task["data"]["image"]
        assert task["predictions"][0]["model_version"] == "ebsc first run"
    configuration = ElementTree.fromstring(done.out[done.out.index("<View>") :])
    assert {choice.get("value") for choice in configuration.iter("Choice")} == {"`seed`", "1", "2"}


@pytest.mark.parametrize("out", ["photos/clusters", "photos/a/clusters", "link/clusters", "../photos/new"])
@pytest.mark.parametrize("copy", [(), ("--copy",)])
def test_the_folder_of_images_takes_no_export(
    ebsc, run: SavedRun, photos: Path, monkeypatch, out, copy
) -> None:
    (photos.parent / "link").symlink_to("photos")
    if out.startswith(".."):
        monkeypatch.chdir(run.path)
    done = ebsc("export", run.path, "--out", out, *copy)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert "give an --out outside of it" in done.err
    monkeypatch.chdir(photos.parent)
    assert len(files(photos)) == 30
    assert ebsc("export", "run", "--out", "new", "--table", "photos/t.csv").code == 0  # a table is no image
    assert ebsc("export", "run", "--out", "again", *copy).code == 0


def test_images_of_an_archive_with_odd_names_are_written_into_their_folders(
    ebsc, photos: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in photos.rglob("*.png"):
            archive.writestr(f"/{path.relative_to(photos)}", path.read_bytes())
    assert ebsc("run", "--data", "photos.zip", *QUICK, *THREE).code == 0
    done = ebsc("export", "run", "--out", "new", "--typical", "1", "--doubtful", "2")
    assert done.code == 0, done.err
    assert {len(Path(name).parts) for name in files(tmp_path / "new")} == {3}
    assert len(files(tmp_path / "new")) == 30 + 3 + 6


def test_rows_without_images_are_only_a_table(ebsc, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).standard_normal((30, 5)).astype(np.float32))
    assert ebsc("cluster", "rows.npy", "--coefficients", "knn", *THREE, "--out", "run").code == 0
    assert ebsc("export", "run", "--table", "t.csv").code == 0
    done = ebsc("export", "run", "--out", "new")
    assert done.code == 2
    assert "only a table makes sense" in done.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say what to export: --out, --table"),
        (("--table", "t.txt"), "ends in one of .csv, .json, .parquet"),
        (("--table", "photos"), "no table"),
        (("--table", "nowhere/t.csv"), "the folder of nowhere/t.csv is not there"),
        (("--out", "photos"), "there already"),
        (("--out", "new", "--table", "run/assignments.csv"), "there already"),
        (("--table", "t.csv", "--sheets"), "give --out, too"),
        (("--out", "new", "--memberships"), "give --table, too"),
        (("--table", "t.csv", "--top", "7"), "--top is the number of clusters that --memberships shows"),
        (("--out", "new", "--top", "3"), "--top is the number of clusters that --memberships shows"),
        (("--fiftyone", "x", "--label-studio", "x"), "the same path"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(ebsc, run: SavedRun, tmp_path: Path, words, said) -> None:
    before = sorted(tmp_path.iterdir())
    done = ebsc("export", "run", *words)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert said in done.err
    assert sorted(tmp_path.iterdir()) == before


def test_an_image_that_fails_leaves_nothing(
    ebsc, run: SavedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ImageFiles.place

    def place(self, position, targets, copy) -> None:
        if position == 20:
            raise OSError(28, "No space left on device")
        real(self, position, targets, copy)

    monkeypatch.setattr(ImageFiles, "place", place)
    before = sorted(tmp_path.iterdir())
    done = ebsc("export", "run", "--out", "new", "--copy")
    assert done.code == 2
    assert "cannot write new: No space left on device" in done.err
    assert sorted(tmp_path.iterdir()) == before


def test_accuracy_rises_with_the_share(ebsc, tmp_path: Path) -> None:
    digits = ("run", "--data", "digits", "--limit", "900", *QUICK, "-q")
    assert ebsc(*digits).code == 0
    assert ebsc("export", "run", "--table", "t.json", "--memberships").code == 0
    rows = json.loads((tmp_path / "t.json").read_text())
    main = {}
    for cluster in {row["cluster"] for row in rows}:
        labels = [row["label"] for row in rows if row["cluster"] == cluster]
        main[cluster] = max(set(labels), key=labels.count)
    right = [row["label"] == main[row["cluster"]] for row in sorted(rows, key=lambda row: row["share"])]
    third = len(right) // 3
    low, middle, high = (np.mean(right[i * third : (i + 1) * third]) for i in range(3))
    assert low < middle <= high
    assert high - low > 0.05
