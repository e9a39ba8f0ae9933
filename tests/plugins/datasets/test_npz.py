"""Images and labels from NumPy archives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.plugins.interfaces import DataContext
from ebsc_core.utils.errors import DataError
from ebsc_plugins.datasets.folder import FolderOptions, resolve_folder
from ebsc_plugins.datasets.npz import NpzOptions, resolve_npz

OneLine = Callable[[pytest.ExceptionInfo[DataError]], str]

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3, 5, 7), dtype=np.uint8)
CLASSES = np.array([3, 1, 3, 0, 0, 1], dtype=np.int32)


def read_npz(path: Path, limit: int | None = None, seed: int = 0, **options: Any) -> ImageSet:
    spec = resolve_npz(str(path))
    assert spec is not None
    assert callable(spec.factory)
    return spec.factory(NpzOptions(**options), DataContext(Path("nowhere"), limit=limit, seed=seed))


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return tmp_path / "data.npz"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (PIXELS, PIXELS),
        (np.moveaxis(PIXELS, 1, -1), PIXELS),
        (PIXELS[:, 0], PIXELS[:, :1]),
        (PIXELS[:, :1], PIXELS[:, :1]),
        (PIXELS[:, 0, ..., None], PIXELS[:, :1]),
        (np.asfortranarray(PIXELS), PIXELS),
        (PIXELS / 255, PIXELS),
        ((PIXELS - 0.4).clip(0) / 255, PIXELS),
        ((PIXELS / 255).astype(np.float32), PIXELS),
        ((PIXELS[:, 0] / 255).astype(">f4"), PIXELS[:, :1]),
    ],
    ids=[
        "first",
        "last",
        "grey",
        "grey first",
        "grey last",
        "fortran",
        "float64",
        "rounded",
        "float32",
        "big-endian",
    ],
)
def test_npz_takes_gray_and_color_bytes_and_floats(
    npz: Path, given: np.ndarray, expected: np.ndarray
) -> None:
    data = read_npz(save(npz, images=given, labels=CLASSES))
    np.testing.assert_array_equal(data.images.numpy(), expected)
    assert data.labels is not None
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == CLASSES.tolist()
    assert data.ids == ["0", "1", "2", "3", "4", "5"]
    assert data.name == "data.npz"


def test_npz_labels_are_optional_and_keys_can_be_named(npz: Path) -> None:
    assert read_npz(save(npz, images=PIXELS)).labels is None
    save(npz, x=PIXELS, y=CLASSES)
    data = read_npz(npz, images="x", labels="y")
    assert data.labels is not None
    assert data.labels.tolist() == CLASSES.tolist()


def test_npz_labels_named_but_missing_are_an_error(npz: Path) -> None:
    save(npz, images=PIXELS, labels=CLASSES)
    with pytest.raises(DataError, match=r"no array 'classes'.*data\.labels=KEY"):
        read_npz(npz, labels="classes")


def test_npz_compressed_and_upper_case_and_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with (tmp_path / "A.NPZ").open("wb") as file:
        np.savez_compressed(file, images=PIXELS)
    assert len(read_npz(Path("~/A.NPZ"))) == 6


def test_npz_limit_takes_a_seeded_sample(npz: Path) -> None:
    save(npz, images=PIXELS, labels=CLASSES)
    part = read_npz(npz, limit=3, seed=1)
    chosen = [int(i) for i in part.ids]
    assert chosen == sorted(chosen)
    assert len(chosen) == 3
    np.testing.assert_array_equal(part.images.numpy(), PIXELS[chosen])
    assert part.labels is not None
    assert part.labels.tolist() == CLASSES[chosen].tolist()
    assert read_npz(npz, limit=3, seed=1).ids == part.ids


@pytest.mark.parametrize("shape", [(3, 40, 33), (1, 33, 40), (1, 6, 5)], ids=["tall", "wide", "small"])
def test_npz_is_resized_as_a_folder_of_the_same_images_is(
    npz: Path, tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (4, *shape), dtype=np.uint8)
    (tmp_path / "same").mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image[0] if shape[0] == 1 else np.moveaxis(image, 0, -1)).save(
            tmp_path / "same" / f"{i}.png"
        )
    spec = resolve_folder(str(tmp_path / "same"))
    assert spec is not None
    assert callable(spec.factory)
    folder = spec.factory(FolderOptions(size=16), DataContext(Path("nowhere")))
    data = read_npz(save(npz, images=pixels), size=16)
    assert data.images.shape == (4, shape[0], 16, 16)
    np.testing.assert_array_equal(data.images.numpy(), folder.images.numpy())


def test_npz_resizing_averages_what_it_shrinks(npz: Path) -> None:
    boards = np.tile(np.array([[0, 255], [255, 0]], dtype=np.uint8), (2, 16, 16))
    data = read_npz(save(npz, images=boards, labels=np.array([1, 0])), size=8)
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0]
    np.testing.assert_allclose(data.images.numpy().astype(int), 127, atol=2)


def test_npz_of_the_size_asked_for_stays_as_it_is(npz: Path) -> None:
    square = PIXELS[..., :5]
    np.testing.assert_array_equal(read_npz(save(npz, images=square), size=5).images.numpy(), square)
    with pytest.raises(ValidationError, match="size"):
        NpzOptions(size=3)


def test_labels_may_be_a_column(npz: Path) -> None:
    found = read_npz(save(npz, images=PIXELS, labels=CLASSES[:, None]))
    assert found.labels is not None
    assert found.labels.tolist() == CLASSES.tolist()


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"pictures": PIXELS}, "pictures"),
        ({"images": PIXELS.astype(object)}, "pickled"),
        ({"images": PIXELS, "labels": CLASSES.astype(object)}, "pickled"),
        ({"images": PIXELS[0, 0]}, "(5, 7)"),
        ({"images": np.zeros((6, 5, 7, 2), dtype=np.uint8)}, "(6, 5, 7, 2)"),
        ({"images": PIXELS[None]}, "(1, 6, 3, 5, 7)"),
        ({"images": PIXELS.astype(np.int64)}, "int64"),
        ({"images": PIXELS.astype(np.float32)}, "[0, 1]"),
        ({"images": PIXELS / 255 - 0.1}, "[0, 1]"),
        ({"images": np.where(PIXELS > 250, np.nan, 0.5)}, "NaN"),
        ({"images": PIXELS[:0]}, "no images"),
        ({"images": PIXELS, "labels": CLASSES[:5]}, "(5,)"),
        ({"images": PIXELS, "labels": np.stack([CLASSES, CLASSES], 1)}, "(6, 2)"),
        ({"images": PIXELS, "labels": CLASSES / 2}, "float64"),
        ({"images": PIXELS, "labels": CLASSES.astype(str)}, "integers"),
    ],
)
def test_npz_with_unusable_arrays_is_refused(
    npz: Path, arrays: dict[str, np.ndarray], says: str, one_line: OneLine
) -> None:
    with pytest.raises(DataError) as error:
        read_npz(save(npz, **arrays))
    assert says in one_line(error)
    assert "data.npz" in one_line(error)


def single_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, PIXELS)


def truncated(path: Path) -> None:
    save(path, images=PIXELS)
    path.write_bytes(path.read_bytes()[:-300])


def flipped_bytes(path: Path) -> None:
    save(path, images=PIXELS)
    content = bytearray(path.read_bytes())
    content[300:310] = bytes(255 - byte for byte in content[300:310])
    path.write_bytes(content)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("hello"),
        single_array,
        truncated,
        flipped_bytes,
    ],
    ids=["missing", "empty", "text", "npy", "truncated", "flipped"],
)
def test_npz_that_cannot_be_read_is_refused(
    npz: Path, make: Callable[[Path], object], one_line: OneLine
) -> None:
    make(npz)
    with pytest.raises(DataError) as error:
        read_npz(npz)
    assert "data.npz" in one_line(error)


def test_encrypted_npz_is_refused(
    npz: Path, one_line: OneLine, pretend_encrypted: Callable[[Path], None]
) -> None:
    pretend_encrypted(save(npz, images=PIXELS))
    with pytest.raises(DataError) as error:
        read_npz(npz)
    assert "data.npz" in one_line(error)


def test_coil20(data_dir: Path) -> None:
    data = read_npz(data_dir / "coil20.npz")
    assert data.images.shape == (1440, 1, 32, 32)
    assert data.n_classes == 20
