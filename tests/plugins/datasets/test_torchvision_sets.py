"""The data sets torchvision knows, from files in torchvision's places."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from torchvision import datasets

from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.plugins.interfaces import DataContext
from ebsc_core.utils.errors import DataError
from ebsc_plugins.datasets import torchvision_sets
from ebsc_plugins.datasets.torchvision_sets import SplitOptions, Stl10Options

OneLine = Callable[[pytest.ExceptionInfo[DataError]], str]


def write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


TRAIN = np.arange(5 * 28 * 28).reshape(5, 28, 28) % 256
TEST = TRAIN[:3] // 2


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    for module in ("mnist", "cifar", "stl10"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", fail)


@pytest.fixture(params=["MNIST", "FashionMNIST"])
def raw(request: pytest.FixtureRequest, tmp_path: Path, offline: None) -> Path:
    raw = tmp_path / request.param / "raw"
    write_idx(raw / "train-images-idx3-ubyte", TRAIN)
    write_idx(raw / "train-labels-idx1-ubyte", np.array([4, 3, 2, 1, 0]))
    write_idx(raw / "t10k-images-idx3-ubyte", TEST)
    write_idx(raw / "t10k-labels-idx1-ubyte", np.array([9, 8, 7]))
    return raw


def read_raw(raw: Path, **options: Any) -> ImageSet:
    name = {"MNIST": "mnist", "FashionMNIST": "fashion_mnist"}[raw.parent.name]
    read = getattr(torchvision_sets, f"read_{name}")
    return read(SplitOptions(**options), DataContext(raw.parent.parent))


def test_mnist_files_in_place_are_read_training_first(raw: Path) -> None:
    data = read_raw(raw)
    np.testing.assert_array_equal(data.images[:, 0].numpy(), np.concatenate([TRAIN, TEST]))
    assert data.labels is not None
    assert data.labels.tolist() == [4, 3, 2, 1, 0, 9, 8, 7]
    assert data.ids == [*(f"train/{i}" for i in range(5)), *(f"test/{i}" for i in range(3))]


@pytest.mark.parametrize(("split", "labels"), [("train", [4, 3, 2, 1, 0]), ("test", [9, 8, 7])])
def test_one_split_alone(raw: Path, split: str, labels: list[int]) -> None:
    data = read_raw(raw, split=split)
    assert data.labels is not None
    assert data.labels.tolist() == labels


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x08", b"hello there", None], ids=["empty", "header", "text", "cut"]
)
def test_damaged_mnist_files_are_refused(raw: Path, content: bytes | None, one_line: OneLine) -> None:
    file = raw / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000] if content is None else content)
    with pytest.raises(DataError, match="damaged") as error:
        read_raw(raw)
    assert str(raw.parent.parent) in one_line(error)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100", "stl10"])
def test_without_files_and_network_one_line_says_so(
    name: str, tmp_path: Path, offline: None, one_line: OneLine
) -> None:
    warnings: list[str] = []
    options = Stl10Options() if name == "stl10" else SplitOptions()
    with pytest.raises(DataError, match="could not be downloaded") as error:
        getattr(torchvision_sets, f"read_{name}")(options, DataContext(tmp_path, warn=warnings.append))
    text = one_line(error)
    assert str(tmp_path) in text
    assert "no route to host" in text
    assert "`data.root`" in text
    assert name.replace("_", "-") in text
    assert len(warnings) == 1


def small_set(
    monkeypatch: pytest.MonkeyPatch, dataset_class: type, parts: dict[Any, tuple[np.ndarray, Any]]
) -> None:
    """Let torchvision's class find these arrays instead of reading files."""

    def init(self: Any, root: str, train: Any = None, split: Any = None, download: bool = False) -> None:
        self.data, labels = parts[train if split is None else split]
        setattr(self, "labels" if split else "targets", labels)
        if split is None:
            self.classes = ["cat", "dog", "owl", "elk", "cow"]

    monkeypatch.setattr(dataset_class, "__init__", init)


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_cifar_becomes_color_first(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    parts = {True: (images[:3], [0, 1, 2]), False: (images[3:], [3, 4])}
    small_set(monkeypatch, getattr(datasets, name), parts)
    data = getattr(torchvision_sets, f"read_{name.lower()}")(SplitOptions(), DataContext(Path("nowhere")))
    np.testing.assert_array_equal(data.images.numpy(), np.moveaxis(images, -1, 1))
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2, 3, 4]
    assert data.label_names() == ["cat", "dog", "owl", "elk", "cow"]


def test_stl10_is_read_by_split_and_unlabeled_has_no_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 96, 96), dtype=np.uint8)
    parts: dict[Any, tuple[np.ndarray, Any]] = {
        "train": (images[:2], np.array([1, 0], dtype=np.uint8)),
        "test": (images[2:4], np.array([5, 9], dtype=np.uint8)),
        "unlabeled": (images[4:], np.array([-1, -1])),
    }
    small_set(monkeypatch, datasets.STL10, parts)
    read = torchvision_sets.read_stl10
    labeled = read(Stl10Options(), DataContext(Path("nowhere")))
    np.testing.assert_array_equal(labeled.images.numpy(), images[:4])
    assert labeled.labels is not None
    assert labeled.labels.tolist() == [1, 0, 5, 9]
    assert labeled.label_names() == ["1", "0", "5", "9"]
    unlabeled = read(Stl10Options(split="unlabeled"), DataContext(Path("nowhere")))
    np.testing.assert_array_equal(unlabeled.images.numpy(), images[4:])
    assert unlabeled.labels is None
