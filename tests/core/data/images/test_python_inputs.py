"""Images that a Python program names or holds: paths, columns of tables, items of data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ebsc_core.data.images.python_inputs import classes_of, given_images
from ebsc_core.plugins.interfaces import DataContext
from ebsc_core.utils.errors import DataError
from ebsc_plugins.datasets.folder import FolderOptions, resolve_folder

SIZES = [(40, 30), (30, 40), (50, 50), (33, 44)]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Pictures of different sizes, transparent and turned ones among them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = np.random.default_rng(0)
    paths = []
    for i, (width, height) in enumerate(SIZES):
        path = tmp_path / f"{i}.png"
        pixels = noise.integers(0, 256, (height, width, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(path, exif=exif if i == 1 else None)
        paths.append(path)
    return paths


class Column:
    """A column of a table of pandas: it is indexed by names, here in another order, and ``iloc`` by order."""

    ndim = 1

    def __init__(self, values: list[Any]) -> None:
        self.iloc = values

    def __len__(self) -> int:
        return len(self.iloc)

    def __getitem__(self, name: int) -> Any:
        return self.iloc[::-1][name]


KINDS: dict[str, Callable[[list[Path]], Any]] = {
    "paths": list,
    "texts": lambda paths: list(map(str, paths)),
    "tuple": tuple,
    "array of texts": lambda paths: np.array(list(map(str, paths))),
    "array of paths": lambda paths: np.array(paths, dtype=object),
    "column": lambda paths: Column(list(map(str, paths))),
    "pairs": lambda paths: [(path, 0) for path in paths],
    "mappings": lambda paths: [{"image": str(path), "label": 0} for path in paths],
}


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_read_as_their_folder_is(files: list[Path], kind: str, tmp_path: Path) -> None:
    spec = resolve_folder(str(tmp_path))
    assert spec is not None
    assert callable(spec.factory)
    folder = spec.factory(FolderOptions(), DataContext(Path("x")))
    data = given_images(KINDS[kind](files))
    np.testing.assert_array_equal(data.to_fit().numpy(), folder.to_fit().numpy())
    assert list(data.ids) == list(map(str, files))
    assert given_images(KINDS[kind](files), size=8).shape == (3, 8, 8)


def test_a_name_may_begin_with_a_tilde(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    files[0].rename("~x.png")
    assert len(given_images(["~x.png", f"~/{files[1].name}"])) == 2


def test_a_column_is_read_by_position_and_not_by_its_index() -> None:
    images = [np.full((4, 4), level, np.uint8) for level in (10, 20, 30)]
    data = given_images(Column(images))
    assert data.to_fit()[:, 0, 0, 0].tolist() == [10, 20, 30]


class Items:
    """A data set as Hugging Face's."""

    features: Mapping[str, Any] = {"label": SimpleNamespace(names=["cat", "dog"])}

    def __init__(self, key: str) -> None:
        self.key = key

    def __len__(self) -> int:
        return 3

    def __getitem__(self, position: int) -> dict[str, Any]:
        if position >= 3:
            raise IndexError
        return {"id": "x", self.key: Image.new("L", (4, 4), 10 * position), "label": position % 2}


@pytest.mark.parametrize("key", ["image", "img"])
def test_mappings_are_images_with_labels(key: str) -> None:
    data = given_images(Items(key))
    assert data.to_fit()[:, 0, 0, 0].tolist() == [0, 10, 20]
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 0]
    assert data.label_names() == ["cat", "dog", "cat"]
    other = given_images(Items(key), ["x", "y", "y"])
    assert other.label_names() == ["x", "y", "y"]


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ([{"picture": 1}], "no 'image' or 'img', but 'picture'"),
        (["nowhere.png"], "cannot read image nowhere.png"),
        ([Path("/")], "not a regular file"),
        ([], "there are no images"),
        (np.array([], dtype=str), "there are no images"),
    ],
)
def test_what_is_wrong_is_one_line(images: Any, says: str) -> None:
    with pytest.raises(DataError, match=says) as error:
        given_images(images)
    assert "\n" not in str(error.value)


def test_paths_and_pictures_are_not_mixed(files: list[Path]) -> None:
    with pytest.raises(DataError, match="image 1 is a Image, the first is a path"):
        given_images([files[0], Image.new("L", (4, 4))])


def test_a_damaged_file_is_named(files: list[Path]) -> None:
    files[2].write_bytes(files[2].read_bytes()[:-100])
    with pytest.raises(DataError, match=r"2\.png \(.*\); repair it or leave it out"):
        given_images(files)


@pytest.mark.parametrize("missing", [np.nan, None, "", "NULL"])
def test_a_missing_label_is_no_class(missing: float | str | None) -> None:
    with pytest.raises(DataError, match=f"1 of 3 labels are missing .label 1 is {missing!r}."):
        classes_of(np.array([2, missing, 2], dtype=object))
    with pytest.raises(DataError, match=r"1 of 2 labels are missing .label 0 is nan."):
        classes_of(np.array([np.nan, 2.0]))
    assert classes_of([2.0, 1.0])[1] == ("1.0", "2.0")
