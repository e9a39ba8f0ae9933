"""Images in a single array."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ebsc_core.plugins.interfaces import DataContext
from ebsc_core.plugins.kinds import Kind
from ebsc_core.plugins.registry import Registry
from ebsc_core.utils.errors import DataError
from ebsc_plugins.datasets.arrays import ArrayOptions
from ebsc_plugins.datasets.npy import resolve_npy

OneLine = Callable[[pytest.ExceptionInfo[DataError]], str]
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)


def read_npy(path: Path, warned: list[str] | None = None, limit: int | None = None, **options: Any) -> Any:
    spec = resolve_npy(str(path))
    assert spec is not None
    assert callable(spec.factory)
    warn = ([] if warned is None else warned).append
    return spec.factory(ArrayOptions(**options), DataContext(Path("x"), warn=warn, limit=limit, workers=0))


@pytest.fixture
def npy(tmp_path: Path) -> Path:
    return tmp_path / "images.npy"


@pytest.mark.parametrize(
    "given", [PIXELS, np.moveaxis(PIXELS, -1, 1), PIXELS / 255, np.asfortranarray(PIXELS)]
)
@pytest.mark.parametrize("stream", [True, False])
def test_all_shapes_are_read_in_memory_and_streamed(npy: Path, given: np.ndarray, stream: bool) -> None:
    np.save(npy, given)
    data = read_npy(npy, stream=stream)
    np.testing.assert_array_equal(data.to_fit().numpy(), np.moveaxis(PIXELS, -1, 1))
    assert list(data.ids) == list("012345")
    assert len(read_npy(npy, limit=4)) == 4


@pytest.mark.parametrize("stream", [True, False])
def test_alpha_lies_on_white_and_is_said(npy: Path, stream: bool) -> None:
    images = np.zeros((4, 5, 6, 4), np.uint8)
    images[:, 2, :, 3] = 255
    np.save(npy, images)
    warned: list[str] = []
    found = read_npy(npy, warned, stream=stream).to_fit().numpy()
    assert found.shape == (4, 3, 5, 6)
    assert (found[:, :, 2] == 0).all()
    assert (np.delete(found, 2, axis=2) == 255).all()
    assert len(warned) == 1
    assert "red, green, blue and alpha" in warned[0]


def test_it_is_found_by_its_path(npy: Path) -> None:
    np.save(npy, PIXELS)
    assert Registry().find(Kind.DATA, str(npy)).options_class is ArrayOptions


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: np.save(path, np.ones((9, 4))), "ebsc cluster"),
        (lambda path: np.save(path, np.array([{}, []], dtype=object)), "pickled"),
        (lambda path: np.save(path, PIXELS.astype(np.int64)), "int64"),
        (lambda path: path.write_bytes(b"hello"), "not a readable .npy file"),
        (lambda path: path.write_bytes(b""), "not a readable .npy file"),
        (lambda path: None, "does not exist"),
    ],
)
def test_what_is_no_array_of_images_is_one_line(
    npy: Path, make: Callable[[Path], object], says: str, one_line: OneLine
) -> None:
    make(npy)
    with pytest.raises(DataError) as error:
        read_npy(npy)
    assert says in one_line(error)
    assert str(npy) in one_line(error)


def test_a_name_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    for path, name in {"~x.npy": "~x.npy", "home/y.npy": "~/y.npy"}.items():
        np.save(tmp_path / path, PIXELS)
        assert len(read_npy(Path(name))) == len(PIXELS)
