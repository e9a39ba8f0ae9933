"""The views an image gets when the user asks for none."""

from __future__ import annotations

from ebsc_core.data.views.options import default_views
from ebsc_core.plugins.interfaces import ImageInfo


def info(channels: int, side: int) -> ImageInfo:
    return ImageInfo(channels, side, side, (0.5,) * channels, (0.2,) * channels)


def test_defaults_never_mirror_or_colour_grey_images() -> None:
    grey = default_views(info(1, 28))
    assert grey.flip == 0
    assert grey.rotate > 0


def test_defaults_blur_large_photographs_only() -> None:
    assert default_views(info(3, 32)).blur == 0
    assert default_views(info(3, 96)).blur > 0
    assert default_views(info(3, 32)).flip == 0.5
