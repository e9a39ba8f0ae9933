"""Provide inputs for the backbones that fit a subspace."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ebsc_core.plugins.interfaces import ImageInfo
from ebsc_plugins.datasets.digits import read_digits


@pytest.fixture
def info() -> Callable[..., ImageInfo]:
    """Make an :class:`ImageInfo` for images of this shape."""

    def make(height: int, width: int | None = None, channels: int = 1) -> ImageInfo:
        return ImageInfo(channels, height, width or height, (0.4,) * channels, (0.2,) * channels)

    return make


@pytest.fixture(scope="session")
def digits() -> Tensor:
    """Read the digits, ``(1797, 1, 8, 8)`` uint8."""
    return read_digits(None, None).images  # type: ignore[arg-type]


@pytest.fixture
def noise() -> Callable[..., Tensor]:
    """Draw random uint8 images whose pixels all differ in mean brightness."""

    def make(n: int, side: int, channels: int = 1) -> Tensor:
        generator = torch.Generator().manual_seed(n)
        scale = torch.linspace(40, 250, channels * side * side).view(channels, side, side)
        return (torch.rand(n, channels, side, side, generator=generator) * scale).to(torch.uint8)

    return make
