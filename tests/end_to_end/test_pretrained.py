"""Trained weights from a file: the size of images, no training by default, and runs that are repeated."""

from __future__ import annotations

import csv
import json
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from ebsc_core import EBSC

NETWORK = ("--backbone", "test_resnet", "--weights", "w.safetensors")
QUICK = ("--n-clusters", "4", "--set", "refine.steps=0")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Make 24 images of 300x200 pixels."""
    (tmp_path / "photos").mkdir()
    for i, digit in enumerate(load_digits().images[:24]):
        picture = Image.fromarray((digit * 15).astype(np.uint8)).resize((300, 200)).convert("RGB")
        picture.save(tmp_path / f"photos/{i:02d}.png")
    return tmp_path / "photos"


def features(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return file["features"][:]


def clusters(path: Path) -> dict[str, str]:
    with path.open(newline="") as file:
        return {line["image"]: line["cluster"] for line in csv.DictReader(file)}


def test_training_from_nothing_on_photographs_is_told_of_trained_weights(ebsc, weights: Path, photos: Path):
    advice = "photographs are usually clustered better, and without training, with --pretrained"
    from_nothing = ("--backbone", "test_resnet", "--epochs", "1", *QUICK, "--no-report")
    assert advice in ebsc("run", "--data", "photos", *from_nothing, "--out", "nothing").out
    small = ebsc("run", "--data", "photos", "--set", "data.size=32", *from_nothing, "--out", "small")
    assert "advice" not in small.out
    assert (
        "advice" not in ebsc("run", "--data", "photos", *NETWORK, *QUICK, "--no-report", "--out", "run").out
    )
    untrained = ("--backbone", "test_resnet", "--epochs", "0", *QUICK, "--no-report", "--out", "untrained")
    assert "advice" not in ebsc("run", "--data", "photos", *untrained).out


def test_a_run_leaves_trained_weights_as_they_are_and_says_what_it_does(ebsc, weights: Path, photos: Path):
    done = ebsc("run", "--data", "photos", *NETWORK, *QUICK, "--out", "run")
    assert done.code == 0, done.err
    # test_resnet expects 160 pixels, the centre of 168.
    assert "24 colour images of 168x168" in done.out
    assert "images brought to 160x160 (bilinear, the centre of 168), weights of" in done.out
    assert "without fc.bias, fc.weight" in done.out
    assert "trained weights stay as they are; --epochs 40 trains them on" in done.out
    config = tomllib.loads((photos.parent / "run/run.toml").read_text())
    assert config["train"]["epochs"] == 0
    assert config["backbone"]["input_size"] == "auto"
    done = ebsc("predict", "run", "photos", "-o", "new.csv", "--features", "new.h5")
    assert done.code == 0, done.err
    np.testing.assert_allclose(
        features(photos.parent / "new.h5"), features(photos.parent / "run/features.h5")
    )


def test_the_python_interface_reads_photos_at_the_same_size(ebsc, weights: Path, photos: Path) -> None:
    assert ebsc("run", "--data", "photos", *NETWORK, *QUICK, "--out", "run").code == 0
    settings = {"backbone.weights": str(weights), "refine.steps": 0}
    paths = sorted(map(str, photos.iterdir()))
    model = EBSC(n_clusters=4, backbone="test_resnet", settings=settings).fit(paths)
    np.testing.assert_allclose(features(model.run_dir_ / "features.h5"), features(Path("run/features.h5")))
    assert model.metrics_["training"] == []
    assert model.predict(paths[:5]).shape == (5,)


def test_the_size_of_the_data_wins_where_it_is_given(ebsc, weights: Path, photos: Path) -> None:
    done = ebsc("run", "--data", "photos", *NETWORK, *QUICK, "--set", "data.size=64", "--out", "run")
    assert "24 colour images of 64x64" in done.out
    assert "images brought to 160x160" in done.out


def test_features_are_reused_by_the_content_of_the_weights(ebsc, weights: Path) -> None:
    words = ("run", "--limit", "40", "--backbone", "test_resnet", *QUICK)
    assert ebsc(*words, "--weights", weights, "--out", "one").code == 0
    copy = weights.with_name("copy.pth")
    torch.save({"state_dict": timm.models.load_state_dict(str(weights))}, copy)
    done = ebsc(*words, "--weights", copy, "--seed", "3", "--set", "data.limit=40", "--out", "two")
    assert "features reused" not in done.out  # another seed draws other images
    done = ebsc(*words, "--weights", copy, "--out", "three")
    assert "features reused" in done.out
    state = timm.models.load_state_dict(str(weights))
    save_file({name: value + 1e-3 for name, value in state.items()}, weights)
    assert "features reused" not in ebsc(*words, "--weights", weights, "--out", "four").out


def test_weights_train_on_if_asked(ebsc, weights: Path) -> None:
    done = ebsc(
        "run", "--limit", "40", *NETWORK, *QUICK, "--epochs", "1", "--batch-size", "20", "--out", "run"
    )
    assert done.code == 0, done.err
    assert "objective     simclr, 1 epoch," in done.out
    assert len(json.loads(Path("run/metrics.json").read_text())["training"]) == 1
    trained = ("--backbone", "test_resnet", "--weights", "run/checkpoints/backbone.safetensors")
    done = ebsc("run", "--limit", "40", *trained, *QUICK, "--out", "again")
    assert done.code == 0, done.err
    assert "images brought to 160x160" in done.out
    np.testing.assert_allclose(
        features(Path("again/features.h5")), features(Path("run/features.h5")), atol=1e-5
    )


def test_a_run_predicts_without_the_file_of_weights_that_it_started_from(
    ebsc, weights: Path, photos: Path
) -> None:
    assert ebsc("run", "--data", "photos", *NETWORK, *QUICK, "--out", "run").code == 0
    again = ("--backbone", "test_resnet", "--weights", "run/checkpoints/backbone.safetensors")
    assert ebsc("run", "--data", "photos", *again, *QUICK, "--out", "again").code == 0
    weights.unlink()
    expected = features(Path("run/features.h5"))
    done = ebsc("predict", "run", "photos", "-o", "new.csv", "--features", "new.h5")
    assert done.code == 0, done.err
    np.testing.assert_allclose(features(Path("new.h5")), expected)
    for file in Path("run").rglob("backbone.safetensors"):
        file.rename("elsewhere")
    done = ebsc("predict", "again", "photos", "-o", "new2.csv", "--features", "new2.h5")
    assert done.code == 0, done.err
    np.testing.assert_allclose(features(Path("new2.h5")), expected, atol=1e-5)


def test_a_run_from_before_is_repeated_and_predicted_as_it_was(ebsc, weights: Path) -> None:
    kept = ("--set", "backbone.input_size=images")
    done = ebsc("run", "--limit", "60", *NETWORK, *kept, *QUICK, "--epochs", "0", "--out", "old")
    assert "images brought" not in done.out
    run = Path("old/run.toml")
    lines = [line for line in run.read_text().splitlines() if not line.startswith(("input_size", "strict"))]
    run.write_text("\n".join(lines))
    Path("old/manifest").unlink()
    done = ebsc("run", "--config", "old/run.toml", "--out", "new", "--cache", "none")
    assert "images brought" not in done.out
    np.testing.assert_array_equal(features(Path("new/features.h5")), features(Path("old/features.h5")))
    assert ebsc("predict", "old", "digits", "-o", "all.csv").code == 0
    expected, found = clusters(Path("old/assignments.csv")), clusters(Path("all.csv"))
    assert np.mean([found[name] == cluster for name, cluster in expected.items()]) > 0.9
    # Another network has its own default again.
    other = ("--backbone", "test_resnet", "--set", "backbone.weights=w.safetensors")
    Path("other.toml").write_text(run.read_text().replace("test_resnet", "test_vit"))
    done = ebsc("run", "--config", "other.toml", *other, "--out", "other")
    assert "images brought to 160x160" in done.out


def test_extraction_takes_the_flags(ebsc, weights: Path) -> None:
    done = ebsc("features", "extract", "digits", *NETWORK, "--limit", "20", "-o", "f.h5")
    assert (done.code, done.err) == (0, "")
    assert "images brought to 160x160" in done.out
    assert "20 images, 96 features each" in done.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--weights", "none.pth"), "none.pth does not exist or is not a file"),
        (("--weights", "."), "does not exist or is not a file"),
        (("--backbone", "identity", "--pretrained"), "pretrained"),
        (("--set", "backbone.input_size=0"), "backbone.input_size"),
        (("--set", "backbone.input_size=large"), "backbone.input_size"),
    ],
)
@pytest.mark.parametrize("command", [("run",), ("features", "extract", "digits")])
def test_mistakes_are_one_line(ebsc, command: tuple[str, ...], words: tuple[str, ...], said: str) -> None:
    done = ebsc(*command, *words, *(("--out", "x.h5") if len(command) > 1 else ()))
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1


def test_a_single_photo_is_read_as_large_as_those_of_the_run(ebsc, tmp_path: Path, photos: Path) -> None:
    """Photos of one size keep it up to the side that the backbone wants, also if that is above 224 pixels."""
    words = ("--backbone", "test_resnet", "--set", "backbone.input_size=320", "--epochs", "0")
    done = ebsc("run", "--data", "photos", *words, *QUICK, "--out", "run", "--no-report")
    assert "24 colour images of 200x300" in done.out
    assert ebsc("predict", "run", "photos", "-o", "all.csv").code == 0
    done = ebsc("predict", "run", "photos/07.png", "-o", "one.csv")
    assert done.code == 0, done.err
    assert clusters(tmp_path / "one.csv")["photos/07.png"] == clusters(tmp_path / "all.csv")["07.png"]
    (photos / "07.png").rename(tmp_path / "new.png")
    done = ebsc("similar", "run", str(tmp_path / "new.png"), "--top", "1", "-o", "similar.csv")
    assert done.code == 0, done.err
    assert (tmp_path / "similar.csv").read_text().splitlines()[1].startswith("07.png,1.0,")
