"""What becomes of image files of any mode, depth, size and orientation, and of damaged ones."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.utils.errors import DataError
from ebsc_plugins.datasets.folder import FolderOptions

Read = Callable[..., ImageSet]
OneLine = Callable[[pytest.ExceptionInfo[DataError]], str]


def picture(mode: str = "RGB", width: int = 12, height: int = 10) -> Image.Image:
    """A smooth picture, so that JPEG keeps it."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (4 + c)) * np.cos(y / (5 - c)) for c in range(3)]
    rgb = Image.fromarray(np.stack([wave * 90 + 128 for wave in waves], axis=-1).astype(np.uint8))
    return rgb.convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)


def test_color_png_and_jpeg_are_read_as_they_are(tree: Path, read: Read) -> None:
    image = picture()
    data = read(tree, {"a.png": encoded(image), "b.JPG": encoded(image, "JPEG", quality=95)})
    assert data.ids == ["a.png", "b.JPG"]
    assert data.images.shape == (2, 3, 10, 12)
    np.testing.assert_array_equal(data.images[0].numpy(), pixels(image))
    assert np.abs(data.images[1].numpy().astype(int) - pixels(image)).mean() < 5
    assert data.labels is None
    assert data.name == tree.name


def test_all_gray_images_make_one_channel(tree: Path, read: Read) -> None:
    image = picture("L")
    data = read(tree, {"a.png": encoded(image), "b.jpeg": encoded(image, "JPEG", quality=95)})
    assert data.images.shape == (2, 1, 10, 12)
    np.testing.assert_array_equal(data.images[0].numpy(), pixels(image))


def test_gray_among_color_images_becomes_color(tree: Path, read: Read) -> None:
    gray = picture("L")
    data = read(tree, {"a.png": encoded(gray), "b.png": encoded(picture())})
    assert data.images.shape == (2, 3, 10, 12)
    np.testing.assert_array_equal(data.images[0].numpy(), np.repeat(pixels(gray), 3, axis=0))


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("LA", 1), ("P", 3), ("RGBA", 3), ("PA", 3)])
def test_palettes_alpha_and_bilevel(folder: Path, mode: str, channels: int, read: Read) -> None:
    image = picture("RGB").convert(mode)
    data = read(
        folder, {"a.png" if mode != "PA" else "a.tif": encoded(image, "PNG" if mode != "PA" else "TIFF")}
    )
    np.testing.assert_array_equal(
        data.images[0].numpy(), pixels(image.convert("L" if channels == 1 else "RGB"))
    )


def test_cmyk_jpeg_becomes_rgb(folder: Path, read: Read) -> None:
    data = read(folder, {"a.jpg": encoded(picture("CMYK"), "JPEG", quality=95)})
    assert np.abs(data.images[0].numpy().astype(int) - pixels(picture())).mean() < 8


@pytest.mark.parametrize(("kind", "name"), [("PNG", "a.png"), ("TIFF", "a.tiff"), ("PPM", "a.pgm")])
def test_sixteen_bit_gray_keeps_its_range(folder: Path, kind: str, name: str, read: Read) -> None:
    levels = np.linspace(0, 65535, 120).reshape(10, 12).astype(np.uint16)
    data = read(folder, {name: encoded(Image.fromarray(levels), kind)})
    assert data.images.shape == (1, 1, 10, 12)
    assert np.abs(data.images[0, 0].numpy() - levels / 257).max() <= 1


def test_exif_orientation_is_applied(tree: Path, read: Read) -> None:
    image = picture(width=16, height=8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    turned = image.transpose(Image.Transpose.ROTATE_270)
    data = read(tree, {"a.png": encoded(image, exif=exif), "b.png": encoded(turned)})
    assert data.images.shape == (2, 3, 16, 8)
    assert torch.equal(data.images[0], data.images[1])


def test_nonsense_orientation_is_ignored(folder: Path, read: Read) -> None:
    # A TIFF header with one entry: orientation, of type "undefined" instead of a number.
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHI4sI", 1, 0x0112, 7, 4, b"\6\0\0\0", 0)
    image = picture(width=16, height=8)
    assert read(folder, {"a.jpg": encoded(image, "JPEG", exif=exif)}).images.shape == (1, 3, 8, 16)


def sizes(*shapes: tuple[int, int]) -> dict[str, bytes]:
    return {f"{i}.png": encoded(picture("L", w, h)) for i, (w, h) in enumerate(shapes)}


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(12, 10)] * 3, (10, 12)),
        ([(224, 30)] * 2, (30, 224)),
        ([(12, 10), (10, 12), (40, 30)], (10, 10)),
        ([(12, 11), (20, 20), (40, 30)], (20, 20)),
        ([(300, 260)] * 2, (224, 224)),
        ([(300, 50)] * 2, (50, 50)),
        ([(3, 2), (2, 3)], (4, 4)),
        ([(3, 2)], (2, 3)),
    ],
)
def test_common_size(
    folder: Path, shapes: list[tuple[int, int]], expected: tuple[int, int], read: Read
) -> None:
    assert read(folder, sizes(*shapes)).images.shape[2:] == expected


def test_size_option_scales_the_shorter_side_and_cuts_out_the_center(tree: Path, read: Read) -> None:
    thirds = np.zeros((30, 90), dtype=np.uint8)
    thirds[:, 30:60], thirds[:, 60:] = 100, 200
    data = read(tree, {"a.png": encoded(Image.fromarray(thirds))}, FolderOptions(size=10))
    assert data.images.shape == (1, 1, 10, 10)
    assert (data.images[..., 1:-1] == 100).all()
    assert read(tree, sizes((12, 10)), FolderOptions(size=20)).images.shape[2:] == (20, 20)


def test_large_jpegs_are_scaled_like_other_images(folder: Path, read: Read) -> None:
    image = picture(width=400, height=320)
    data = read(
        folder, {"a.jpg": encoded(image, "JPEG", quality=95), "b.png": encoded(image)}, FolderOptions(size=32)
    )
    assert (data.images[0].int() - data.images[1].int()).abs().float().mean() < 4


def cut_short(kind: str) -> bytes:
    whole = encoded(picture(width=40, height=40), kind)
    return whole[: len(whole) * 2 // 3]


BAD = {
    "text": b"hello",
    "empty": b"",
    "jpeg": cut_short("JPEG"),
    "png": cut_short("PNG"),
    "header": encoded(picture())[:20],
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_a_corrupt_image_is_named(
    tree: Path, content: bytes, read: Read, warned: list[str], one_line: OneLine
) -> None:
    files = {"a/good.png": encoded(picture(width=40, height=40)), "b/bad.jpg": content}
    with pytest.raises(DataError, match="cannot read image") as error:
        read(tree, files)
    assert str(tree / "b" / "bad.jpg") in one_line(error)
    assert "`data.skip_bad_images`" in one_line(error)
    assert not warned


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_a_corrupt_image_can_be_skipped_with_a_warning(
    tree: Path, content: bytes, read: Read, warned: list[str]
) -> None:
    good = encoded(picture(width=40, height=40))
    data = read(tree, {"a/1.png": good, "a/bad.jpg": content, "b/1.png": good}, skip_bad_images=True)
    assert data.ids == ["a/1.png", "b/1.png"]
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1]
    assert len(warned) == 1
    assert str(tree / "a" / "bad.jpg") in warned[0]


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_nothing_but_corrupt_images_is_an_error(
    tree: Path, content: bytes, read: Read, one_line: OneLine
) -> None:
    with pytest.raises(DataError, match="no readable image") as error:
        read(tree, {"a.png": content, "b.png": content}, skip_bad_images=True)
    assert str(tree) in one_line(error)


def test_how_many_images_are_corrupt_is_said(folder: Path, read: Read) -> None:
    with pytest.raises(DataError, match=r"a\.png and 2 more"):
        read(folder, {"a.png": b"x", "b.png": b"x", "c.png": b"x"})
