"""Features in place of images: clustered, looked at, extracted; and new rows and images that join a run."""

from __future__ import annotations

import csv
import json
import os
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score

from ebsc_core import EnergySubspaceClustering
from ebsc_core.runs.predict import new_data
from ebsc_core.runs.store.directory import RunDirectory
from ebsc_core.runs.store.saved import SavedRun

QUICK = ("--set", "refine.steps=0")
PIXELS = ("--backbone", "identity", "--epochs", "0", *QUICK)
HELD_OUT = 300


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def agreement(one: Path, other: Path) -> float:
    """Adjusted Rand index of the same images' clusters."""
    first, second = ({line["image"]: line["cluster"] for line in lines_of(path)} for path in (one, other))
    assert first.keys() == second.keys()
    return adjusted_rand_score(list(first.values()), [second[name] for name in first])


def acc(run: Path) -> float:
    return json.loads((run / "metrics.json").read_text())["scores"]["acc"]


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """``new`` and ``old`` digits, as ``.npz`` of features and, in ``*-images.npz``, of images."""
    found = load_digits()
    pixels, labels = (found.images / 16).astype(np.float32), found.target
    for name, part in {"new": slice(HELD_OUT), "old": slice(HELD_OUT, None), "all": slice(None)}.items():
        np.savez(tmp_path / f"{name}-images.npz", images=pixels[part], labels=labels[part])
        np.savez(tmp_path / f"{name}.npz", features=found.data[part], labels=labels[part])
    return tmp_path


def test_a_folder_in_place_of_a_file_is_one_line(ebsc, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    done = ebsc("cluster", "photos", "--n-clusters", "3")
    assert done.code == 2
    assert done.err == (
        "ebsc: error: photos is a folder, not a file; if it holds images, `ebsc run` clusters them\n"
    )


def test_rows_of_zeros_and_missing_classes_are_said(ebsc, tmp_path: Path) -> None:
    X, y = load_digits(return_X_y=True)
    rows, kinds = X[:120].copy(), [str(kind) for kind in y[:120]]
    rows[[5, 50]] = 0
    kinds[7:10] = ["", "", ""]
    lines = [",".join([*map(str, row), kind]) for row, kind in zip(rows, kinds, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join([",".join([*(f"c{i}" for i in range(64)), "label"]), *lines]))
    done = ebsc("cluster", "t.csv", *QUICK, "--no-report", "-q", "--out", "run")
    assert done.code == 0, done.err
    said = json.loads((tmp_path / "run" / "metrics.json").read_text())["warnings"]
    assert any("3 of 120 rows have the class '', which looks like a missing one" in line for line in said)
    assert any("2 of 120 rows are all zeros" in line for line in said)
    assert all(line in done.err for line in said)
    with pytest.warns(UserWarning, match="2 of 120 rows are all zeros"):
        EnergySubspaceClustering(n_clusters=3, random_state=0).fit(rows)


def test_features_are_clustered_as_images_of_the_same_pixels(ebsc, digits: Path) -> None:
    assert ebsc("run", "--data", "all-images.npz", *PIXELS, "--out", "images").code == 0
    done = ebsc("cluster", "all.npz", *QUICK, "--out", "rows")
    assert done.code == 0, done.err
    assert "1797 rows of 64, 10 classes (for scoring only)" in done.out
    assert agreement(digits / "images/assignments.csv", digits / "rows/assignments.csv") > 0.99
    names = {path.name for path in (digits / "rows").iterdir()}
    files = {"run.toml", "assignments.csv", "metrics.json", "features.h5", "affinity.npz"}
    assert names >= {*files, "checkpoints"}
    config = tomllib.loads((digits / "rows/run.toml").read_text())
    assert "backbone" not in config
    assert config["features"]["path"] == str(digits / "all.npz")
    again = ebsc("run", "--config", "rows/run.toml", "--out", "again")
    assert again.code == 0, again.err
    first, second = (digits / run / "assignments.csv" for run in ("rows", "again"))
    assert first.read_bytes() == second.read_bytes()


def test_images_are_found_by_the_rows_names_or_in_order(ebsc, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 4))
    names = [f"{i:02d}.png" for i in range(30)]
    (tmp_path / "pictures").mkdir()
    for name in names:
        Image.new("L", (8, 8), int(name[:2])).save(tmp_path / "pictures" / name)
    few = ("--n-clusters", "3", "--images", "pictures", *QUICK)
    np.savez(tmp_path / "some.npz", features=rows[:20], ids=np.array(names[:20][::-1]))
    assert ebsc("cluster", "some.npz", *few, "--out", "some").code == 0
    np.save(tmp_path / "all.npy", rows)
    assert ebsc("cluster", "all.npy", *few, "--out", "all").code == 0
    np.save(tmp_path / "few.npy", rows[:20])
    done = ebsc("cluster", "few.npy", *few, "--out", "few")
    assert (done.code, "30 images for 20 rows" in done.err) == (2, True)
    assert not (tmp_path / "few").exists()


@pytest.mark.parametrize("kind", ["images", "rows"])
def test_new_ones_join_about_as_well_as_if_they_had_been_there(ebsc, digits: Path, kind: str) -> None:
    if kind == "images":
        fit = ("run", "--data", "old-images.npz", *PIXELS)
        new, whole = "new-images.npz", ("run", "--data", "all-images.npz", *PIXELS)
    else:
        fit, new, whole = ("cluster", "old.npz", *QUICK), "new.npz", ("cluster", "all.npz", *QUICK)
    assert ebsc(*fit, "--out", "fitted").code == 0
    assert ebsc(*whole, "--out", "whole").code == 0
    done = ebsc("predict", "fitted", new, "-o", "new.csv")
    assert done.code == 0, done.err
    lines = lines_of(digits / "new.csv")
    assert [line["image"] for line in lines] == [str(i) for i in range(HELD_OUT)]
    assert all(0 < float(line["confidence"]) <= 1 for line in lines)
    said = float(done.out.partition("ACC ")[2].partition(" %")[0]) / 100
    assert said > acc(digits / "whole") - 0.05


def test_predict_gives_held_out_images_what_the_run_gave_them(ebsc, tmp_path: Path) -> None:
    trained = (
        *("--limit", "200", "--epochs", "1", "--batch-size", "50", "--backbone", "resnet10t"),
        *("--set", "protocol=train-test", *QUICK),
    )
    assert ebsc("run", *trained, "--out", "run").code == 0
    done = ebsc("predict", "run", "digits", "-o", "all.csv", "--features", "all.h5")
    assert done.code == 0, done.err
    given = {line["image"]: line["cluster"] for line in lines_of(tmp_path / "all.csv")}
    held_out = [line for line in lines_of(tmp_path / "run/assignments.csv") if line["split"] == "test"]
    assert len(held_out) == 40
    assert all(given[line["image"]] == line["cluster"] for line in held_out)
    with h5py.File(tmp_path / "all.h5") as new, h5py.File(tmp_path / "run/features.h5") as old:
        assert new["features"].shape == (1797, 512)
        place = {name: i for i, name in enumerate(new["ids"][:])}
        chosen = [place[name] for name in old["ids"][:]]
        np.testing.assert_allclose(new["embeddings"][:][chosen], old["embeddings"][:], atol=1e-4)


def write_images(folder: Path, mode: str, side: int) -> None:
    folder.mkdir()
    for i, (digit, label) in enumerate(zip(*load_digits(return_X_y=True), strict=True)):
        if i < 120:
            picture = Image.fromarray((digit.reshape(8, 8) * 15).astype(np.uint8)).convert(mode)
            picture.resize((side, side)).save(folder / f"{label}-{i}.png")


@pytest.mark.parametrize(("mode", "side"), [("L", 8), ("RGB", 8), ("RGB", 32)])
def test_new_images_may_be_of_another_size_and_in_color(ebsc, tmp_path: Path, mode: str, side: int) -> None:
    write_images(tmp_path / "old", "L", 8)
    write_images(tmp_path / "new", mode, side)
    assert ebsc("run", "--data", "old", "--n-clusters", "5", *PIXELS, "--out", "run").code == 0
    done = ebsc("predict", "run", "new", "-o", "new.csv")
    assert done.code == 0, done.err
    assert agreement(tmp_path / "run/assignments.csv", tmp_path / "new.csv") > 0.9


def test_files_of_single_images_join_and_standard_output_gets_the_lines_alone(ebsc, tmp_path: Path) -> None:
    write_images(tmp_path / "old", "L", 8)
    assert ebsc("run", "--data", "old", "--n-clusters", "5", *PIXELS, "--out", "run").code == 0
    assert ebsc("predict", "run", "old", "-o", "all.csv").code == 0
    clusters = {line["image"]: line["cluster"] for line in lines_of(tmp_path / "all.csv")}
    (tmp_path / "old" / "0-0.png").rename(tmp_path / "one.PNG")
    done = ebsc("predict", "run", "one.PNG", "old/1-1.png", "old/2-2.png", "-o", "-")
    assert done.code == 0
    lines = {line["image"]: line["cluster"] for line in csv.DictReader(done.out.splitlines())}
    assert lines == {
        name: clusters[old]
        for name, old in (("one.PNG", "0-0.png"), ("old/1-1.png", "1-1.png"), ("old/2-2.png", "2-2.png"))
    }
    assert "3 images -> standard output" in done.err
    assert ebsc("predict", "run", "one.PNG", "-o", "one.csv").code == 0
    assert lines_of(tmp_path / "one.csv")[0]["cluster"] == clusters["0-0.png"]
    for words, said in (
        (("old", "one.PNG"), "only files of single images"),
        (("one.PNG", "--skip-bad-images"), "--skip-bad-images is about data sets"),
    ):
        done = ebsc("predict", "run", *words, "-o", "-")
        assert (done.code, done.out) == (2, "")
        assert said in done.err


def test_how_new_images_are_read_may_be_set_in_both_ways(ebsc, tmp_path: Path) -> None:
    write_images(tmp_path / "old", "L", 8)
    write_images(tmp_path / "new", "L", 8)
    (tmp_path / "new/bad.png").write_bytes(b"no picture")
    assert ebsc("run", "--data", "old", "--n-clusters", "5", *PIXELS, "--out", "run").code == 0
    assert ebsc("predict", "run", "new", "-o", "new.csv").code == 2
    for words in (("--skip-bad-images",), ("--set", "data.skip_bad_images=true")):
        done = ebsc("predict", "run", "new", "-o", "new.csv", *words)
        assert done.code == 0, done.err
        assert len(lines_of(tmp_path / "new.csv")) == 120
    root = new_data(SavedRun(tmp_path / "run"), "new", ["data.root=there"]).data.root
    assert root == "there"
    done = ebsc("predict", "run", "new", "-o", "x.csv", "--set", "train.epochs=3")
    assert (done.code, (tmp_path / "x.csv").exists()) == (2, False)
    assert "'train.epochs' says nothing here, leave it out: options here begin with data." in done.err


def test_images_join_though_those_of_the_run_are_gone(ebsc, tmp_path: Path) -> None:
    write_images(tmp_path / "old", "L", 8)
    write_images(tmp_path / "new", "L", 8)
    assert ebsc("run", "--data", "old", "--n-clusters", "5", *PIXELS, "--out", "run").code == 0
    (tmp_path / "old").rename(tmp_path / "elsewhere")
    done = ebsc("predict", "run", "new", "-o", "new.csv")
    assert (done.code, done.err) == (0, "")
    assert agreement(tmp_path / "run/assignments.csv", tmp_path / "new.csv") > 0.9


def test_a_color_run_takes_gray_images(ebsc, tmp_path: Path) -> None:
    write_images(tmp_path / "old", "RGB", 8)
    write_images(tmp_path / "new", "L", 8)
    assert ebsc("run", "--data", "old", "--n-clusters", "5", *PIXELS, "--out", "run").code == 0
    assert ebsc("predict", "run", "new", "-o", "new.csv").code == 0
    assert agreement(tmp_path / "run/assignments.csv", tmp_path / "new.csv") == 1


def test_names_of_any_bytes_are_kept(ebsc, tmp_path: Path) -> None:
    write_images(tmp_path / "old", "L", 8)
    nasty = [b'"quoted", and comma.png', b"new\nline.png", b"<script>alert(1)<.png", b"\xff\xfe.png"]
    for old, new in zip(sorted(os.listdir(os.fsencode(tmp_path / "old"))), nasty, strict=False):
        os.rename(os.fsencode(tmp_path / "old") + b"/" + old, os.fsencode(tmp_path / "old") + b"/" + new)
    assert ebsc("run", "--data", "old", "--n-clusters", "3", *PIXELS, "--out", "run").code == 0
    assert ebsc("predict", "run", "old", "-o", "new.csv", "--features", "new.h5").code == 0
    names = {os.fsencode(line["image"]) for line in lines_of(tmp_path / "new.csv")}
    assert names >= set(nasty)
    assert "of 64 numbers" in ebsc("features", "new.h5").out


def test_features_are_extracted_and_looked_at(ebsc, digits: Path) -> None:
    done = ebsc("features", "extract", "digits", "--backbone", "pca", "--limit", "200", "-o", "f.h5")
    assert done.code == 0, done.err
    shown = ebsc("features", "f.h5").out
    assert "200 of " in shown
    assert '"name": "pca"' in shown
    with h5py.File("f.h5", "r+") as file:
        file.attrs["key"] = "\x1b]0;title\x07"
    assert "\x1b" not in ebsc("features", "f.h5").out
    assert ebsc("cluster", "f.h5", *QUICK, "--out", "run").code == 0
    assert "200 of " in ebsc("features", "run").out
    assert "300 of 64" in ebsc("features", "show", "new.npz").out
    for words in (("--array", "images", "new-images.npz"), ("new-images.npz", "--array=images")):
        assert "features have shape (300, 8, 8)" in ebsc("features", *words).err
    assert "did you mean --array?" in ebsc("features", "--aray", "images", "new.npz").err
    assert "extract" in ebsc("features", "--help").out
    assert "random" not in done.err


def test_a_file_of_settings_may_name_a_run_in_the_home_folder(
    ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 5)))
    (tmp_path / "own.toml").write_text('out = "~/x"\nn_clusters = 2\ncoefficients.name = "knn"\n')
    done = ebsc("cluster", "x.npy", "--config", "own.toml")
    assert done.code == 0, done.err
    assert (tmp_path / "home/x/run.toml").is_file()
    assert not (tmp_path / "~").exists()


def test_what_an_extraction_uses_can_be_set(ebsc, tmp_path: Path) -> None:
    words = (
        "data.limit=20",
        "backbone.name=identity",
        "seed=3",
        "device=cpu",
        "precision=fp32",
        "cache=none",
    )
    done = ebsc(*EXTRACT[:-1], *(word for setting in words for word in ("--set", setting)))
    assert done.code == 0, done.err
    assert "20 images" in done.out
    assert "objective" not in ebsc("features", "extract", "--help").out


def test_features_of_random_weights_are_said_to_be_so(ebsc) -> None:
    done = ebsc("features", "extract", "digits", "--backbone", "resnet10t", "--limit", "20", "-o", "f.h5")
    assert done.code == 0, done.err
    assert "warning: the weights of resnet10t are random, and nothing trains here" in done.err
    assert "ebsc plugins show resnet10t" in done.err


BAD = np.full((20, 4), np.nan)
EXTRACT = ("features", "extract", "digits", "-o", "x.h5", "--set")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("cluster", "none.npy"), "does not exist"),
        (("cluster", "all.npz", "--labels", "kind"), "--labels"),
        (("cluster", "bad.npy", "--n-clusters", "2"), "row 0 ('0') holds NaN"),
        (("cluster", "good.npy"), "has no classes; say how many clusters with --n-clusters"),
        (("cluster", "good.npy", "--n-clusters", "21"), "has only 20 rows"),
        (("cluster", "good.npy", "--n-clusters", "2", "--images", "none"), "none"),
        (("cluster", "all.npz", "--set", "backbone.name=resnet18"), "'backbone' says nothing"),
        (("cluster", "all.npz", "--set", "protocol=train-test"), "'protocol' says nothing"),
        (("predict", "run", "wide.npy", "-o", "x.csv"), "have 5 numbers"),
        (("predict", "run", "bad.npy", "-o", "x.csv"), "row 0 ('0') holds NaN"),
        (("predict", "run", "none.npy", "-o", "x.csv"), "does not exist"),
        (("predict", "run", "photos", "-o", "x.csv"), "was made from a file of features and has no network"),
        (("predict", "none", "good.npy", "-o", "x.csv"), "none does not exist"),
        (("predict", "run", "good.npy", "-o", "none/x.csv"), "is not there"),
        (("predict", "run", "good.npy", "-o", "run"), "is a folder"),
        (("predict", "run", "good.npy", "-o", "x.csv", "--features", "x.h5"), "and has no others"),
        (("predict", "run", "good.npy", "-o", "x.csv", "--set", "features.colour=1"), "colour"),
        (("predict", "run", "good.npy", "-o", "x.csv", "--set", "data.limit=5"), "begin with features."),
        (("predict", "run", "good.npy", "-o", "x.csv", "--set", "features=5"), "as a single value"),
        (("predict", "run", "good.npy", "-o", "x.csv", "--data-root", "."), "'data.root' says nothing here"),
        (("predict", "run", "good.npy", "-o", "x.csv", "--skip-bad-images"), "'data.skip_bad_images' says"),
        (("features", "none.npy"), "does not exist"),
        (("features", "."), "holds no finished run"),
        (("features", "bad.npy"), "holds NaN"),
        (("features", "extract", "none", "-o", "x.h5"), "none"),
        (("features", "extract", "digits", "-o", "."), "is a folder"),
        ((*EXTRACT, "objective.temperature=0.3"), "'objective.temperature' says nothing here"),
        ((*EXTRACT, "n_clusters=3"), "data. and backbone.; others are seed, device, precision, cache"),
        ((*EXTRACT, "backbone=pca"), "'backbone' is a section, not an option"),
        ((*EXTRACT, "seed.a=3"), "seed"),
    ],
)
def test_bad_input_is_one_line(ebsc, digits: Path, words: tuple[str, ...], said: str) -> None:
    good = np.random.default_rng(0).normal(size=(20, 4))
    np.save(digits / "good.npy", good)
    np.save(digits / "bad.npy", BAD)
    np.save(digits / "wide.npy", np.ones((3, 5)))
    if words[0] == "predict":
        assert ebsc("cluster", "good.npy", "--n-clusters", "2", *QUICK, "--out", "run").code == 0
    before = set(digits.rglob("*"))
    done = ebsc(*words)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1
    assert set(digits.rglob("*")) - before <= {digits / "runs"}


@pytest.mark.usefixtures("with_reports")
def test_a_killed_run_on_features_goes_on(ebsc, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(directory: RunDirectory) -> None:
        assert directory.lock
        directory.lock.close()

    class KilledError(BaseException):
        """Stands for the end of the process: nothing catches it."""

    def kill(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as killed:
        killed.setattr(RunDirectory, "_leave_nothing", ends)
        killed.setattr("ebsc_core.runs.clustering_stage.cluster_rows", kill)
        with pytest.raises(KilledError):
            ebsc("cluster", "new.npz", *QUICK, "--out", "run")
    assert [path.name for path in (digits / "run").iterdir() if path.is_file()] == ["unfinished.toml"]
    assert ebsc("resume", "run", "--no-report").code == 0
    assert ebsc("cluster", "new.npz", *QUICK, "--out", "other").code == 0
    assert [(digits / run / "report.html").exists() for run in ("run", "other")] == [False, True]
    first, second = (digits / run / "assignments.csv" for run in ("run", "other"))
    assert first.read_bytes() == second.read_bytes()


def test_predict_says_how_many_rows_have_no_cluster(ebsc, tmp_path: Path) -> None:
    rows = np.repeat(np.eye(3, 6), 20, 0) + 0.01 * np.random.default_rng(0).normal(size=(60, 6))
    rows[:20] = np.eye(6)[3:].repeat(7, 0)[:20] + 3 * np.random.default_rng(1).normal(size=(20, 6))
    np.save(tmp_path / "rows.npy", rows.astype(np.float32))
    dbscan = ("--clusterer", "DBSCAN", "--set", "clusterer.eps=0.1", "--set", "clusterer.min_samples=10")
    fit = ("cluster", "rows.npy", "--n-clusters", "2", "--coefficients", "knn", *dbscan, "--set", "top_k=1")
    done = ebsc(*fit, "--no-report", "--out", "fitted")
    assert done.code == 0, done.err
    n_none = sum(line["cluster"] == "-1" for line in lines_of(tmp_path / "fitted/assignments.csv"))
    assert n_none > 0
    assert f"{n_none} of 60 rows" in done.out + done.err
    done = ebsc("predict", "fitted", "rows.npy", "-o", "new.csv")
    assert done.code == 0, done.err
    n_none = sum(line["cluster"] == "-1" for line in lines_of(tmp_path / "new.csv"))
    assert n_none > 0
    assert f"{n_none} of them have no cluster" in done.out + done.err
