"""The images of a run are found again, or it is said what became of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

from ebsc_core.plugins.registry import Registry
from ebsc_core.runs.store.images import read_again
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import DataError, EbscError

QUICK = (
    "--backbone",
    "identity",
    "--epochs",
    "0",
    "--coefficients",
    "knn",
    "--n-clusters",
    "2",
    "--out",
    "run",
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(20):
        Image.new("L", (12, 10), 10 * i).save(folder / f"{i:02}.png")
    return folder


def again(tmp_path: Path):
    return read_again(SavedRun(tmp_path / "run"), Registry(), lambda message: None)


def levels(images, positions: list[int]) -> list[int]:
    found = np.full(len(positions), -1)
    for which, pixels in images.read(np.array(positions)):
        assert pixels.dtype == np.uint8
        found[which] = pixels[:, 0, 0, 0]
    return found.tolist()


@pytest.mark.parametrize("stream", ["true", "false"])
def test_they_are_found_in_any_order(ebsc, tmp_path: Path, photos: Path, stream: str) -> None:
    assert ebsc("run", "--data", photos, *QUICK, "--out", "run", "--set", f"data.stream={stream}").code == 0
    images = again(tmp_path)
    assert len(images) == 20
    assert levels(images, [3, 19, 0]) == [30, 190, 0]


def test_those_held_out_come_last(ebsc, tmp_path: Path, photos: Path) -> None:
    held_out = ("--set", "protocol=train-test", "--limit", "15")
    assert ebsc("run", "--data", photos, *QUICK, *held_out, "--out", "run").code == 0
    images, ids = again(tmp_path), SavedRun(tmp_path / "run").assignments.ids
    assert images.held_out is not None
    assert (len(images.fitted), len(images.held_out)) == (12, 3)
    assert levels(images, [14, 0, 12]) == [10 * int(ids[i][:2]) for i in (14, 0, 12)]


@pytest.mark.parametrize("file", [(20, 20), (300, 260)])  # below and above the side that the backbone wants
def test_they_have_the_size_that_the_run_saw(ebsc, tmp_path: Path, file: tuple[int, int]) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(20):
        Image.new("RGB", file, (10 * i, 0, 0)).save(tmp_path / f"photos/{i:02}.png")
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
    trained = ("--backbone", "test_resnet", "--weights", "w.safetensors", "--n-clusters", "2")
    done = ebsc("run", "--data", "photos", *trained, "--coefficients", "knn", "--out", "run")
    assert done.code == 0, done.err
    seen = SavedRun(tmp_path / "run").provenance["images"]
    assert (seen["height"], seen["width"]) == ((20, 20) if file == (20, 20) else (168, 168))
    (tmp_path / "w.safetensors").unlink()  # it is not needed to show them
    assert again(tmp_path).fitted.shape[1:] == (seen["height"], seen["width"])


def test_larger_ones_that_have_come_since_do_not_change_their_size(
    ebsc, tmp_path: Path, photos: Path
) -> None:
    assert ebsc("run", "--data", photos, *QUICK).code == 0
    for i in range(30):
        Image.new("L", (50, 50), 255).save(photos / f"new-{i}.png")
    assert max(again(tmp_path).fitted.shape[1:]) <= 12


def test_a_run_of_an_older_version_does_not_say_their_size(ebsc, tmp_path: Path, photos: Path) -> None:
    assert ebsc("run", "--data", photos, *QUICK).code == 0
    file = tmp_path / "run/run.toml"
    file.write_text(file.read_text().partition("[provenance.images]")[0])
    (tmp_path / "run/manifest").unlink()
    assert "images" not in SavedRun(tmp_path / "run").provenance
    assert levels(again(tmp_path), [3]) == [30]


def test_an_array_that_cannot_be_streamed_is_read(ebsc, tmp_path: Path) -> None:
    pixels = np.arange(20, dtype=np.uint8)[:, None, None] * np.ones((1, 6, 6), np.uint8)
    np.savez_compressed(tmp_path / "a.npz", images=pixels)
    assert ebsc("run", "--data", tmp_path / "a.npz", *QUICK, "--out", "run").code == 0
    assert levels(again(tmp_path), [7]) == [7]


def test_what_became_of_them_is_said(ebsc, tmp_path: Path, photos: Path) -> None:
    assert ebsc("run", "--data", photos, *QUICK, "--out", "run").code == 0
    (photos / "00.png").rename(photos / "x.png")
    missing = r"1 of the 20 images of the run are not in .*photos now: 00\.png"
    with pytest.raises(DataError, match=missing):
        again(tmp_path)
    (photos / "x.png").unlink()
    for name in ("01", "02", "03"):
        (photos / f"{name}.png").unlink()
    with pytest.raises(DataError, match=r"4 of the 20 .*: 00\.png, 01\.png, 02\.png, …"):
        again(tmp_path)
    photos.rename(tmp_path / "elsewhere")
    with pytest.raises(EbscError, match=r"cannot be found: .*photos does not exist.*`data\.name` says where"):
        again(tmp_path)


def test_images_that_have_moved_are_read_where_they_are_now(
    ebsc, with_reports: None, tmp_path: Path, photos: Path
) -> None:
    assert ebsc("run", "--data", photos, *QUICK, "--out", "run").code == 0
    with_pictures = (tmp_path / "run/report.html").stat().st_size
    photos.rename(tmp_path / "elsewhere")
    failed = ebsc("export", "run", "--out", "new", "--copy")
    assert failed.code == 2
    assert "--data says where they are now" in failed.err
    done = ebsc("export", "run", "--out", "new", "--copy", "--data", "elsewhere")
    assert done.code == 0, done.err
    copied = sorted(file.name for file in (tmp_path / "new").rglob("*.png"))
    assert copied == [f"{i:02}.png" for i in range(20)]
    assert ebsc("report", "run", "--data", "elsewhere").err == ""
    assert (tmp_path / "run/report.html").stat().st_size > 0.9 * with_pictures
    found = ebsc("duplicates", "run", "--data", "elsewhere")
    assert "20 images" in found.out
    np.savez(tmp_path / "a.npz", images=np.zeros((20, 8, 8), np.uint8))
    for place, said in (("", "is empty"), ("nowhere/x", "cannot be found"), ("photo", "no file, folder")):
        refused = ebsc("export", "run", "--out", "other", "--data", place)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert said in refused.err
    refused = ebsc("duplicates", "elsewhere", "--data", "elsewhere")
    assert (refused.code, refused.err.count("\n")) == (2, 1)


def test_a_folder_in_place_of_an_array_is_said_to_be_another_kind(ebsc, tmp_path: Path, photos: Path) -> None:
    pixels = np.arange(20, dtype=np.uint8)[:, None, None] * np.ones((1, 6, 6), np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels)
    assert ebsc("run", "--data", "a.npz", *QUICK).code == 0
    refused = ebsc("export", "run", "--out", "new", "--data", "photos")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert f"photos is of another kind than {tmp_path}/a.npz, where the images of the run were" in refused.err


@pytest.mark.parametrize("limit", [(), ("--limit", "15")])
@pytest.mark.parametrize("protocol", ["all", "train-test"])
def test_images_that_have_come_since_are_left_out(
    ebsc, tmp_path: Path, photos: Path, protocol: str, limit: tuple[str, ...]
) -> None:
    assert ebsc("run", "--data", photos, *QUICK, *limit, "--set", f"protocol={protocol}").code == 0
    ids = SavedRun(tmp_path / "run").assignments.ids
    for name in ("000", "05b", "99"):
        Image.new("L", (12, 10), 255).save(photos / f"{name}.png")
    said = list[str]()
    images = read_again(SavedRun(tmp_path / "run"), Registry(), lambda message: None, said.append)
    assert list(images.ids()) == ids
    assert levels(images, [*range(len(ids))]) == [10 * int(name[:2]) for name in ids]
    assert said[-1] == f"{23 - len(ids)} images that the run has not seen are left out"


def test_images_without_names_have_to_be_as_many(ebsc, tmp_path: Path) -> None:
    for n in (20, 21):
        np.savez(tmp_path / "a.npz", images=np.arange(n * 36, dtype=np.uint8).reshape(n, 6, 6))
        if n == 20:
            assert ebsc("run", "--data", tmp_path / "a.npz", *QUICK).code == 0
    with pytest.raises(DataError, match=r"a\.npz holds other images than the run was made of"):
        again(tmp_path)


@pytest.mark.parametrize("stream", ["true", "false"])
@pytest.mark.parametrize("share", [0.0, 0.5])  # of its bytes; half of them are enough for the header
def test_one_that_is_broken_since_is_to_be_restored(
    ebsc, tmp_path: Path, photos: Path, stream: str, share: float
) -> None:
    for file in photos.iterdir():
        pixels = np.random.default_rng(int(file.stem)).integers(0, 256, (30, 30), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    assert ebsc("run", "--data", photos, *QUICK, "--set", f"data.stream={stream}").code == 0
    name = SavedRun(tmp_path / "run").assignments.ids[7]
    content = (photos / name).read_bytes()
    (photos / name).write_bytes(content[: int(share * len(content))])
    done = ebsc("export", "run", "--out", "new", "--sheets")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    report = ebsc("report", "run")
    assert report.code == 0
    for said in (done.err, report.err + (tmp_path / "run/report.html").read_text()):
        assert f"photos/{name}" in said
        assert "the run was made of it, so restore it" in said
        assert "--skip-bad-images" not in said


def test_those_of_features_are_found_without_the_other_parts(ebsc, tmp_path: Path, photos: Path) -> None:
    np.save(tmp_path / "f.npy", np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32))
    cluster = ("cluster", "f.npy", "--images", photos, "--n-clusters", "2", "--coefficients", "knn")
    assert ebsc(*cluster, "--out", "run").code == 0
    file = tmp_path / "run/run.toml"
    file.write_text(file.read_text().replace('name = "knn"', 'name = "gone-since"'))
    (tmp_path / "run/manifest").unlink()
    assert SavedRun(tmp_path / "run").config.coefficients.name == "gone-since"
    assert levels(again(tmp_path), [7, 2]) == [70, 20]


def clustered(ebsc, tmp_path: Path, names: list[str], *more: str):
    """Cluster rows with these names, whose pictures are in ``photos``."""
    rows = np.random.default_rng(0).normal(size=(len(names), 4))
    lines = [
        "image,a,b,c,d",
        *(f"{name},{','.join(map(str, row))}" for name, row in zip(names, rows, strict=True)),
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    flags = ("--images", "photos", "--n-clusters", "2", "--coefficients", "knn", "--out", "run", *more)
    return ebsc("cluster", "t.csv", *flags)


@pytest.mark.parametrize("form", ["photos/{:02}.png", "/home/me/photos/{:02}.png", "{:02}.PNG", "{:02}"])
def test_rows_get_the_pictures_of_their_names(ebsc, tmp_path: Path, photos: Path, form: str) -> None:
    order = np.random.default_rng(1).permutation(20)
    done = clustered(ebsc, tmp_path, [form.format(i) for i in order])
    assert done.code == 0, done.err
    assert "photos: an image for each row, all by name" in done.out
    assert levels(again(tmp_path), list(range(20))) == [10 * i for i in order]


def test_named_rows_are_matched_by_order_only_if_asked(ebsc, tmp_path: Path, photos: Path) -> None:
    names = [f"{i:02}.png" for i in range(19)] + ["other.png"]
    done = clustered(ebsc, tmp_path, names)
    assert done.code == 2
    assert "19 of 20 rows have an image of their name; 'other.png' has none" in done.err
    assert not (tmp_path / "run").exists()
    done = clustered(ebsc, tmp_path, names, "--set", "features.match=order")
    assert done.code == 0, done.err
    assert "photos: an image for each row, by order (as asked)" in done.out
    assert levels(again(tmp_path), [19, 3]) == [190, 30]
    (photos / "more.png").write_bytes((photos / "00.png").read_bytes())
    done = clustered(ebsc, tmp_path, names, "--set", "features.match=order", "--out", "other")
    assert done.code == 2
    assert "21 images for 20 rows" in done.err
