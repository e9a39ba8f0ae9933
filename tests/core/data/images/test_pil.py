"""Every mode and depth that Pillow reads becomes the 8-bit pixels that a viewer shows on a white page."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ebsc_core.data.images.arrays import to_uint8
from ebsc_core.data.images.pil import channels_of, eight_bit, is_gray
from ebsc_core.data.images.python_inputs import given_images

RED, HALF_RED = (255, 0, 0), (255, 127, 127)


def raw(mode: str, values: Any, dtype: Any) -> Image.Image:
    levels = np.asarray(values, dtype)
    return Image.frombytes(mode, levels.shape[1::-1], levels.tobytes())


def four(mode: str, *colors: Any) -> Image.Image:
    image = Image.new(mode, (len(colors), 1))
    for x, color in enumerate(colors):
        image.putpixel((x, 0), color)
    return image


def with_info(image: Image.Image, transparency: Any) -> Image.Image:
    image.info["transparency"] = transparency
    return image


def palette(mode: str = "P") -> Image.Image:
    image = raw("P", [[0, 1, 2]], np.uint8)
    image.putpalette([255, 0, 0, 0, 0, 255, 9, 9, 9])
    if mode == "PA":
        image = image.convert("PA")
        image.putalpha(raw("L", [[255, 0, 128]], np.uint8))
    return image


# Mode or depth: the picture, whether it is grey, and its grey levels or colours.
TABLE: dict[str, tuple[Image.Image, bool, list[Any]]] = {
    "1": (raw("1", [[0b10100000]], np.uint8).resize((3, 1), box=(0, 0, 1, 1)), True, [255, 255, 255]),
    "L": (raw("L", [[0, 7, 255]], np.uint8), True, [0, 7, 255]),
    "L, one level transparent": (with_info(raw("L", [[0, 7, 255]], np.uint8), 0), True, [255, 7, 255]),
    "LA": (four("LA", (0, 0), (0, 128), (9, 255)), True, [255, 127, 9]),
    "La": (four("LA", (0, 0), (0, 128), (9, 255)).convert("La"), True, [255, 127, 9]),
    "P": (palette(), False, [RED, (0, 0, 255), (9, 9, 9)]),
    "P, one entry transparent": (with_info(palette(), 1), False, [RED, (255, 255, 255), (9, 9, 9)]),
    "P, alpha per entry": (
        with_info(palette(), bytes([128, 0, 255])),
        False,
        [HALF_RED, (255, 255, 255), (9, 9, 9)],
    ),
    "PA": (palette("PA"), False, [RED, (255, 255, 255), (132, 132, 132)]),
    "RGB": (four("RGB", RED, (1, 2, 3)), False, [RED, (1, 2, 3)]),
    "RGB, one colour transparent": (
        with_info(four("RGB", RED, (1, 2, 3)), (1, 2, 3)),
        False,
        [RED, (255, 255, 255)],
    ),
    "RGBA": (
        four("RGBA", (0, 0, 0, 0), (*RED, 128), (1, 2, 3, 255)),
        False,
        [(255, 255, 255), HALF_RED, (1, 2, 3)],
    ),
    "RGBa": (
        four("RGBA", (0, 0, 0, 0), (*RED, 128), (1, 2, 3, 255)).convert("RGBa"),
        False,
        [(255, 255, 255), HALF_RED, (1, 2, 3)],
    ),
    "RGBX": (four("RGBX", (*RED, 0), (1, 2, 3, 9)), False, [RED, (1, 2, 3)]),
    "CMYK": (four("CMYK", (0, 255, 255, 0), (0, 0, 0, 255)), False, [RED, (0, 0, 0)]),
    "YCbCr": (four("YCbCr", (76, 85, 255), (200, 128, 128)), False, [(254, 0, 0), (200, 200, 200)]),
    "LAB": (four("LAB", (255, 128, 128), (0, 128, 128)), False, [(255, 255, 255), (0, 0, 0)]),
    "HSV": (four("HSV", (0, 255, 255), (0, 0, 99)), False, [RED, (99, 99, 99)]),
    "I;16": (raw("I;16", [[0, 257, 65535]], "<u2"), True, [0, 1, 255]),
    "I;16B": (raw("I;16B", [[0, 257, 65535]], ">u2"), True, [0, 1, 255]),
    "I;16, 12 bits used": (raw("I;16", [[0, 2048, 4095]], "<u2"), True, [0, 128, 255]),
    "I;16, 8 bits used": (raw("I;16", [[0, 7, 255]], "<u2"), True, [0, 7, 255]),
    "I;16, one level transparent": (
        with_info(raw("I;16", [[0, 257, 65535]], "<u2"), 257),
        True,
        [0, 255, 255],
    ),
    "I, 16 bits used": (raw("I", [[0, 257, 65535]], "<i4"), True, [0, 1, 255]),
    "I, 8 bits used": (raw("I", [[0, 7, 255]], "<i4"), True, [0, 7, 255]),
    "I, more bits": (raw("I", [[0, 10**8, 2 * 10**8]], "<i4"), True, [0, 128, 255]),
    "I, negative": (raw("I", [[-1000, 0, 3000]], "<i4"), True, [0, 64, 255]),
    "F, 0 to 1": (raw("F", [[0, 0.5, 1]], "<f4"), True, [0, 128, 255]),
    "F, 0 to 255": (raw("F", [[0, 7, 255]], "<f4"), True, [0, 7, 255]),
    "F, 0 to 65535": (raw("F", [[0, 257, 65535]], "<f4"), True, [0, 1, 255]),
    "F, negative": (raw("F", [[-1, 0, 3]], "<f4"), True, [0, 64, 255]),
    "F, not all finite": (raw("F", [[np.nan, 0.2, 1]], "<f4"), True, [51, 51, 255]),
    "F, all equal": (raw("F", [[-2, -2]], "<f4"), True, [0, 0]),
    "F, nothing finite": (raw("F", [[np.nan, np.inf]], "<f4"), True, [0, 0]),
}


def test_the_table_has_every_mode() -> None:
    modes = {picture.mode for picture, _, _ in TABLE.values()}
    assert {mode for mode in modes if not mode.startswith("I;16")} == {
        *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX"),
        *("CMYK", "YCbCr", "LAB", "HSV", "I", "F"),
    }


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize(("picture", "gray", "expected"), TABLE.values(), ids=TABLE.keys())
def test_pixels_of_every_mode(picture: Image.Image, gray: bool, expected: list[Any]) -> None:
    assert is_gray(picture) is gray
    colors = np.array([[level] * 3 if gray else level for level in expected])
    found = channels_of(eight_bit(picture, "RGB"))
    np.testing.assert_allclose(found[:, 0].T, colors, atol=picture.mode == "LAB")  # by its profile
    luma = np.asarray(Image.fromarray(np.ascontiguousarray(found.transpose(1, 2, 0))).convert("L"))
    np.testing.assert_array_equal(channels_of(eight_bit(picture, "L"))[0], luma)


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "LA"), ("PNG", "RGBA"), ("WEBP", "RGBA"), ("TIFF", "RGBA"), ("TIFF", "LA")]
)
def test_a_transparent_drawing_is_dark_on_white(kind: str, mode: str) -> None:
    drawing = Image.new(mode, (12, 12))
    for x in range(12):
        drawing.putpixel((x, 3), (0,) * (len(mode) - 1) + (255,))
    file = io.BytesIO()
    drawing.save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    levels = channels_of(eight_bit(Image.open(file), "L"))[0]
    assert (levels[3] == 0).all()
    assert (np.delete(levels, 3, axis=0) == 255).all()


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 4), min_size=1, max_size=20))
def test_arrays_with_alpha_become_the_pixels_of_such_pictures(colors: list[tuple[int, ...]]) -> None:
    pixels = np.array([colors] * 2, np.uint8)  # (2, W, 4)
    expected = channels_of(eight_bit(Image.fromarray(pixels), "RGB"))
    np.testing.assert_array_equal(to_uint8("here", pixels[None])[0], expected)


@pytest.mark.parametrize("order", ["last", "first"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_four_channels_are_colours_and_alpha(order: str, dtype: type) -> None:
    images = np.zeros((2, 5, 6, 4), np.uint8)
    images[:, 2, :, 3] = 255
    images[:, 3, :] = (255, 0, 0, 128)
    shaped = images if order == "last" else np.moveaxis(images, -1, 1)
    source = given_images((shaped / 255).astype(dtype) if dtype is np.float32 else shaped)
    found = source.to_fit().numpy()
    assert found.shape == (2, 3, 5, 6)
    assert (found[:, :, [0, 1, 4]] == 255).all()
    assert (found[:, :, 2] == 0).all()
    np.testing.assert_array_equal(found[0, :, 3, 0], HALF_RED)


def test_images_of_width_four_keep_their_channels() -> None:
    images = np.arange(2 * 3 * 5 * 4, dtype=np.uint8).reshape(2, 3, 5, 4)
    np.testing.assert_array_equal(to_uint8("here", images), images)


def test_many_floats_are_converted_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).random((7, 3, 4, 5))
    whole = to_uint8("here", images)
    monkeypatch.setattr("ebsc_core.data.images.arrays.BLOCK", 2 * 3 * 4 * 5)
    np.testing.assert_array_equal(to_uint8("here", images), whole)
