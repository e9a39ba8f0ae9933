"""EBSC: the same engine as the command line, on whatever a Python program holds images in."""

from __future__ import annotations

import csv
import gc
import json
import logging
import pickle
import signal
import subprocess
import sys
import tomllib
from collections import UserDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchvision.datasets import ImageFolder, VisionDataset
from torchvision.transforms import Grayscale, ToTensor

from ebsc_core import EBSC, EbscError
from ebsc_core.estimators.progress import Spoken
from ebsc_core.utils.errors import Interrupted

QUICK = {"refine.steps": 20}
N = 150


def pixels(**given: Any) -> EBSC:
    """No training: raw pixels are expressed by one another."""
    return EBSC(**({"n_clusters": 10, "backbone": "identity", "epochs": 0, "settings": QUICK} | given))


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """uint8 ``(N, 8, 8)``, and classes."""
    found = load_digits()
    return np.rint(found.images[:N] * (255 / 16)).astype(np.uint8), found.target[:N]


@pytest.fixture(scope="module")
def fitted(digits, tmp_path_factory: pytest.TempPathFactory) -> EBSC:
    return pixels(cache=tmp_path_factory.mktemp("features")).fit(digits[0])


def lines_of(run: Path) -> list[dict[str, str]]:
    with (run / "assignments.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_gives_what_the_command_gives(ebsc, tmp_path: Path, digits) -> None:
    images, labels = digits
    np.savez(tmp_path / "digits.npz", images=images, labels=labels)
    words = ("--backbone", "resnet10t", "--epochs", "2", "--set", "refine.steps=20", "--set", "train.lr=5e-4")
    done = ebsc("run", "--data", "digits.npz", *words, "--seed", "1", "--cache", "none", "--out", "theirs")
    assert done.code == 0, done.err
    settings = {"refine": {"steps": 20}, "train.lr": np.float64(5e-4)}
    given = {"backbone": "resnet10t", "epochs": 2, "settings": settings, "random_state": np.int64(1)}
    ours = EBSC(**given, cache="none", run_dir=tmp_path / "ours").fit(images, labels)
    assert lines_of(tmp_path / "ours") == lines_of(tmp_path / "theirs")
    assert {path.name for path in ours.run_dir_.iterdir()} == {
        f.name for f in (tmp_path / "theirs").iterdir()
    }
    assert ours.labels_.tolist() == [int(line["cluster"]) for line in lines_of(tmp_path / "theirs")]
    assert ours.scores_ == json.loads((tmp_path / "theirs/metrics.json").read_text())["scores"]
    assert ours.n_clusters_ == 10
    assert (ours.predict(images) == ours.labels_).mean() > 0.9
    assert ebsc("predict", "ours", "digits.npz", "-o", "joined.csv").code == 0
    with (tmp_path / "joined.csv").open(newline="") as file:
        joined = [int(line["cluster"]) for line in csv.DictReader(file)]
    assert EBSC.load("theirs").predict(images).tolist() == joined == ours.predict(images).tolist()


class Pictures(VisionDataset):
    """A data set as torchvision has them: a picture and a class for each position."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Callable | None = None) -> None:
        super().__init__(root="", transform=transform)
        self.images, self.labels, self.classes = images, labels, [f"digit {i}" for i in range(10)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> tuple[Any, int]:
        picture = Image.fromarray(self.images[position])
        return self.transform(picture) if self.transform else picture, int(self.labels[position])


def floats(images: np.ndarray) -> np.ndarray:
    return (images / 255).astype(np.float32)


KINDS: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "N, H, W": lambda x, y: x,
    "floats": lambda x, y: floats(x),
    "doubles": lambda x, y: x / 255,
    "N, H, W, 1": lambda x, y: x[..., None],
    "N, 1, H, W": lambda x, y: x[:, None],
    "not contiguous": lambda x, y: np.asfortranarray(x)[:, None],
    "tensor": lambda x, y: torch.from_numpy(x),
    "tensor with gradient": lambda x, y: torch.from_numpy(floats(x))[:, None].requires_grad_(),
    "half": lambda x, y: torch.from_numpy(floats(x))[:, None].half(),
    "pictures": lambda x, y: Pictures(x, y),
    "tensors of pictures": lambda x, y: Pictures(x, y, ToTensor()),
    "tensors": lambda x, y: TensorDataset(torch.from_numpy(floats(x))[:, None], torch.from_numpy(y)),
    "tensors alone": lambda x, y: TensorDataset(torch.from_numpy(x)),
    "list of pictures": lambda x, y: [Image.fromarray(image) for image in x],
    "list of arrays": lambda x, y: list(floats(x)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_images_may_come_in_anything(digits, fitted: EBSC, kind: str) -> None:
    given = KINDS[kind](*digits)
    found = clone(fitted).fit(given)
    np.testing.assert_array_equal(found.labels_, fitted.labels_)
    np.testing.assert_array_equal(fitted.predict(given), fitted.predict(digits[0]))
    assert (found.scores_ is not None) == (kind in ("pictures", "tensors of pictures", "tensors"))


def test_color_images_in_any_order_are_the_same(digits) -> None:
    color = np.stack([digits[0], digits[0] // 2, 255 - digits[0]], axis=-1)
    kinds = [color, np.moveaxis(color, -1, 1), [Image.fromarray(image) for image in color]]
    first, *others = (pixels().fit_transform(kind) for kind in kinds)
    assert first.shape == (N, 192)
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_gray_and_color_pictures_may_be_mixed(digits) -> None:
    gray = [Image.fromarray(image) for image in digits[0]]
    mixed = [image.convert("RGB") if i % 2 else image for i, image in enumerate(gray)]
    all_color = [image.convert("RGB") for image in gray]
    np.testing.assert_array_equal(pixels().fit_transform(mixed), pixels().fit_transform(all_color))


def test_a_logger_gets_the_messages_and_only_verbose_prints(
    digits, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, logger="ebsc"):
        pixels(cache="none", coefficients="knn").fit(digits[0])
    told = [record.getMessage() for record in caplog.records if record.name == "ebsc"]
    assert any("150 images" in message for message in told)
    assert capsys.readouterr().out == ""


def test_paths_are_read_as_the_command_reads_them(digits, fitted: EBSC, tmp_path: Path) -> None:
    for i, (image, label) in enumerate(zip(*digits, strict=True)):
        (tmp_path / "images" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "images" / str(label) / f"{i:03d}.png")
    found = pixels().fit(tmp_path / "images")
    places = [int(Path(name).stem) for name in found.ids_]
    assert adjusted_rand_score(found.labels_, fitted.labels_[places]) > 0.7
    assert found.scores_["acc"] > 0.5
    np.testing.assert_array_equal(found.predict(str(tmp_path / "images")), found.predict(digits[0][places]))
    folder = ImageFolder(tmp_path / "images", transform=Grayscale())  # which reads all files as colour
    same = pixels().fit(folder)
    np.testing.assert_array_equal(same.labels_, found.labels_)
    assert same.scores_ == found.scores_
    assert len(pixels(settings=QUICK | {"data.limit": 60}).fit("digits").labels_) == 60


def test_a_plain_script_may_stream(digits, tmp_path: Path) -> None:
    """Without a question for ``__main__``: the processes that read must not run it."""
    (tmp_path / "images").mkdir()
    for i, image in enumerate(digits[0][:40]):
        Image.fromarray(image).save(tmp_path / "images" / f"{i:02d}.png")
    (tmp_path / "script.py").write_text(
        "print('begins')\n"
        "from ebsc_core import EBSC\n"
        "settings = {'data.stream': True, 'data.workers': 1, 'refine.steps': 2}\n"
        "model = EBSC(3, backbone='identity', epochs=0, cache='none', settings=settings).fit('images')\n"
        "print(len(model.predict('images')), __file__, __spec__)\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["begins", f"40 {tmp_path / 'script.py'} None"]


def test_what_it_says_of_the_images(digits, fitted: EBSC) -> None:
    images, labels = digits
    assert fitted.labels_.shape == fitted.confidence_.shape == (N,)
    assert ((fitted.confidence_ > 0) & (fitted.confidence_ <= 1)).all()
    assert fitted.ids_[:2] == ["0", "1"]
    assert fitted.affinity_.shape == (N, N)
    assert fitted.metrics_["label_free"]["cluster_sizes"] == np.bincount(fitted.labels_).tolist()
    assert fitted.scores_ is None
    np.testing.assert_allclose(np.linalg.norm(fitted.embedding_, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(fitted.transform(images), fitted.embedding_, atol=1e-6)
    assert (fitted.predict(images) == fitted.labels_).mean() > 0.9
    assert adjusted_rand_score(labels, fitted.labels_) > 0.4
    joined, confidence = fitted.predict(images[:1], return_confidence=True)
    assert joined.shape == confidence.shape == (1,)


def test_words_for_classes_are_scored(digits) -> None:
    words = np.array(["zero", "one"])[(digits[1] > 4).astype(int)]
    found = pixels(n_clusters=None).fit(digits[0], words)
    assert found.n_clusters_ == 2
    assert 0.5 <= found.scores_["acc"] <= 1
    assert lines_of(found.run_dir_)[0]["label"] == words[0]


@pytest.mark.filterwarnings("ignore:.*; n_clusters decides it")  # of 150 digits it is not clear
def test_the_number_of_clusters_is_found_without_the_classes(digits) -> None:
    first, second = (pixels(n_clusters="auto").fit(digits[0], labels) for labels in (None, digits[1] % 2))
    assert first.n_clusters_ == second.n_clusters_ == len(np.unique(first.labels_))
    np.testing.assert_array_equal(first.labels_, second.labels_)


def test_a_temporary_run_lives_as_long_as_its_estimator(digits) -> None:
    found = pixels().fit(digits[0])
    first = found.run_dir_
    assert (first / "run.toml").exists()
    again = pickle.loads(pickle.dumps(found))
    expected = found.fit(digits[0]).predict(digits[0])
    gc.collect()
    assert not first.parent.exists()
    np.testing.assert_array_equal(again.predict(digits[0]), expected)
    second = found.run_dir_, again.run_dir_
    assert second[0] != second[1]
    del found, again
    gc.collect()
    assert not any(path.parent.exists() for path in second)


def test_a_run_is_loaded_and_repeated_on_other_images(digits, tmp_path: Path) -> None:
    images, _ = digits
    made = pixels(run_dir=tmp_path / "run", clusterer="k-subspaces").fit(images[:100])
    found = EBSC.load(tmp_path / "run")
    np.testing.assert_array_equal(found.labels_, made.labels_)
    np.testing.assert_array_equal(found.predict(images), made.predict(images))
    assert found.fit(images[50:]).labels_.shape == (100,)
    config = tomllib.loads((found.run_dir_ / "run.toml").read_text())
    assert (config["clusterer"]["name"], config["data"]["name"]) == ("k-subspaces", "images in memory")
    assert "data" not in config["provenance"]["parts"]
    np.testing.assert_array_equal(EBSC.load(tmp_path / "run").labels_, made.labels_)


def test_a_fit_that_was_stopped_goes_on(digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"backbone": "resnet10t", "epochs": 2, "cache": tmp_path / "features"}
    whole = pixels(**given | {"cache": "none"}).fit(digits[0])

    def ctrl_c(self: Spoken, done: int, figures: Any = None) -> None:
        signal.raise_signal(signal.SIGINT)

    stopped = pixels(**given, run_dir=tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Spoken, "advance", ctrl_c)
        with pytest.raises(Interrupted, match=r"goes on from epoch 2 of 2\nto go on: fit again"):
            stopped.fit(digits[0])
    with pytest.raises(EbscError, match="is unfinished"):
        EBSC.load(tmp_path / "run")
    np.testing.assert_array_equal(stopped.fit(digits[0]).labels_, whole.labels_)
    assert stopped.metrics_["training"] == whole.metrics_["training"]


def test_a_run_in_memory_is_not_repeated_on_other_images_by_accident(ebsc, digits, tmp_path: Path) -> None:
    pixels(run_dir=tmp_path / "run").fit(digits[0])
    done = ebsc("run", "--config", "run/run.toml", "--out", "again")
    assert done.code == 2
    assert "images in memory" in done.err


def test_generators_are_left_as_they_were(digits, fitted: EBSC) -> None:
    before = torch.get_rng_state()
    clone(fitted).set_params(cache="none", backbone="resnet10t", epochs=1).fit(digits[0][:40])
    fitted.predict(digits[0])
    assert torch.equal(before, torch.get_rng_state())


def test_it_stands_in_a_search(digits) -> None:
    images, labels = digits
    search = GridSearchCV(pixels(), {"n_clusters": [3, 10]}, scoring="adjusted_rand_score", cv=2)
    assert search.fit(images, labels).best_params_ == {"n_clusters": 10}
    assert search.predict(images).shape == (N,)


def test_it_shows_what_was_chosen() -> None:
    assert (
        repr(EBSC(12, backbone="resnet34", epochs=5)) == "EBSC(backbone='resnet34', epochs=5, n_clusters=12)"
    )


class Stream(IterableDataset):
    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(X)


X = np.zeros((6, 8, 8), np.uint8)
BAD_IMAGES: dict[str, tuple[Any, str]] = {
    "flat": (np.zeros((6, 64)), "images have shape (6, 64); expected (N, H, W)"),
    "five channels": (np.zeros((6, 8, 8, 5)), "with C 1, 3 or 4"),
    "one": (X[:1], "one image alone has nothing to be compared with"),
    "none": (X[:0], "there are no images"),
    "integers": (X.astype(np.int64), "dtype int64; expected uint8 or floats in [0, 1]"),
    "large": (X + 16.0, "must lie in [0, 1], without NaN"),
    "NaN": (X + np.nan, "must lie in [0, 1], without NaN"),
    "empty list": ([], "there are no images"),
    "list of names": (["a.png", "b.png"], "cannot read image a.png"),
    "sizes": ([X[0], X[1, :4]], "image 1 is 4x8, the first is 8x8"),
    "loader": (
        DataLoader(TensorDataset(torch.zeros(4, 1, 8, 8))),
        "DataLoader, which has no length and positions; give its .dataset",
    ),
    "iterator": (iter(X), "cannot take images from a"),
    "table": (UserDict({"image": X}), "cannot take images from a UserDict"),
    "no positions": (Stream(), "cannot take image 0 from a Stream (NotImplementedError"),
    "number": (3, "cannot take images from a int"),
    "path": ("nowhere/at-all", "nowhere/at-all does not exist"),
}


@pytest.mark.parametrize("bad", BAD_IMAGES)
def test_what_cannot_be_images_is_one_line(bad: str, tmp_path: Path) -> None:
    given, said = BAD_IMAGES[bad]
    with pytest.raises(EbscError) as error:
        pixels(n_clusters=2, run_dir=tmp_path / "run").fit(given)
    assert isinstance(error.value, ValueError)
    assert said in str(error.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"n_clusters": None},
            "has no classes; say how many clusters with n_clusters, or have it found by n_clusters='auto'",
        ),
        ({"n_clusters": 200}, f"n_clusters is 200 but images in memory has only {N} images"),
        ({"backbone": "resnet17"}, "unknown backbone 'resnet17'"),
        ({"backbone": "resnet10t", "epochs": 1, "batch_size": 500}, "batch_size is 500"),
        ({"settings": {"data.size": 4}}, "'data.size' has no effect on images in memory"),
        ({"settings": {"train.epochs": 5}, "epochs": 0}, "'train.epochs' in settings has no effect"),
        ({"settings": {"protocol": "train-test"}}, "fit holds nothing out"),
        ({"settings": {"features.path": "x.npy"}}, "use EnergySubspaceClustering"),
        ({"settings": {"objective": "simclr"}}, "'objective' is a section, not an option"),
        ({"config": "missing.toml"}, "cannot read missing.toml"),
        ({"run_dir": __file__}, "is a file, not a folder; choose another run_dir"),
        ({"epochs": -1}, "option 'train.epochs'"),
        ({"device": "cuda:99"}, "cuda"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_mistake_is_one_line(digits, given: dict[str, Any], said: str) -> None:
    with pytest.raises(EbscError) as error:
        pixels(**given).fit(digits[0])
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "--" not in str(error.value)


def test_what_cannot_join_is_refused(digits, fitted: EBSC, tmp_path: Path) -> None:
    images, labels = digits
    with pytest.raises(NotFittedError):
        pixels().predict(images)
    with pytest.raises(NotFittedError):
        _ = pixels().embedding_
    with pytest.raises(ValueError, match="images are of 4x8, those of"):
        fitted.predict(images[:, :4])
    with pytest.raises(ValueError, match="labels have shape"):
        pixels().fit(images, labels[:-1])
    with pytest.raises(ValueError, match="is read with labels of its own"):
        pixels().fit("digits", labels)
    with pytest.raises(EbscError, match="holds no finished run"):
        EBSC.load(tmp_path)
    color = np.repeat(images[..., None], 3, axis=-1)
    np.testing.assert_array_equal(fitted.predict(color), fitted.predict(images))


def test_paths_and_mappings_are_fitted_and_predicted_as_their_folder(digits, tmp_path: Path) -> None:
    images = digits[0][:60]
    (tmp_path / "pictures").mkdir()
    paths = [tmp_path / "pictures" / f"{i:02}.png" for i in range(60)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    model = pixels(n_clusters=4)
    expected = model.fit_predict(tmp_path / "pictures")
    for given in (paths, list(map(str, paths)), np.array(paths), [{"image": p, "label": 0} for p in paths]):
        found = clone(model).fit(given)
        np.testing.assert_array_equal(found.labels_, expected)
        assert found.ids_ == list(map(str, paths))
    for path in paths[:5]:  # later files of another size are brought to that of the run
        Image.open(path).resize((24, 24), Image.Resampling.NEAREST).save(path)
    np.testing.assert_array_equal(found.predict(paths[:5]), found.predict(images[:5]))
