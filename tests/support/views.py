"""Options, images and draws for the tests of views."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from ebsc_core.data.views.apply import draw_view
from ebsc_core.data.views.options import ViewOptions
from ebsc_core.data.views.parameters import LUMA, draw_parameters

OFF = ViewOptions(crop=1, aspect=1, flip=0, rotate=0, brightness=0, contrast=0, jitter_prob=1)
ALL_ON = ViewOptions(
    crop=0.3,
    flip=0.5,
    rotate=30,
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.3,
    gray_prob=0.3,
    blur_prob=0.5,
    noise=0.1,
)


def only(**options: float | bool) -> ViewOptions:
    return OFF.model_copy(update=options)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise_images(
    n: int, channels: int = 3, height: int = 20, width: int = 28, low: int = 0, high: int = 256
) -> Tensor:
    return torch.randint(low, high, (n, channels, height, width), dtype=torch.uint8)


def smooth_images(n: int, channels: int, height: int, width: int) -> Tensor:
    """Waves some 60 pixels long, on which half a pixel matters little."""
    y, x = torch.meshgrid(torch.arange(height) / 10, torch.arange(width) / 10, indexing="ij")
    phases = torch.rand(n, channels, 1, 1) * 6
    waves = torch.sin(x + phases) + torch.sin(y - 2 * phases) + torch.sin((x - y) / 2 + 3 * phases)
    return ((waves + 3) / 6 * 255).round().to(torch.uint8)


def unit(images: Tensor) -> Tensor:
    return images.float() / 255


def luma(images: Tensor) -> Tensor:
    return torch.einsum("nchw,c->nhw", images, torch.tensor(LUMA))


def draw(images: Tensor, options: ViewOptions, seed: int = 0) -> Tensor:
    return draw_view(images, options, seeded(seed))


def drawn_from(shape: torch.Size, options: ViewOptions) -> torch.Generator:
    generator = seeded()
    draw_parameters(shape, options, generator)
    return generator


shapes = st.tuples(
    st.integers(1, 4),
    st.sampled_from([1, 3]),
    st.sampled_from([8, 9, 28, 33, 64]),
    st.sampled_from([8, 28, 47]),
)
