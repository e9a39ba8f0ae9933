"""Images describe themselves by small pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.data.features import pixel_rows as module
from ebsc_core.data.features.pixel_rows import SIDE, pixel_rows
from ebsc_core.data.images.in_memory import ImageSet

CPU = torch.device("cpu")


def rows(pixels: Tensor) -> Tensor:
    return pixel_rows(ImageSet("some", pixels, [str(i) for i in range(len(pixels))]), CPU)


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("shape", "width"),
    [
        ((1, 8, 8), 64),
        ((1, 16, 16), 256),
        ((3, 32, 32), 3 * 256),
        ((1, 40, 20), SIDE * SIDE // 2),
        ((1, 200, 3), SIDE),
    ],
)
def test_rows_are_of_unit_length_and_have_few_columns(shape: tuple[int, ...], width: int) -> None:
    found = rows(noise(5, *shape))
    assert found.shape == (5, width)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))


def test_small_images_are_their_pixels_and_large_ones_means_of_pixels() -> None:
    small, large = noise(4, 3, 10, 12), noise(4, 1, 32, 32)
    torch.testing.assert_close(rows(small), F.normalize(small.float().flatten(1), dim=1))
    means = large.float().unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5)).flatten(1)
    torch.testing.assert_close(rows(large), F.normalize(means, dim=1))


def test_a_picture_is_like_itself_at_another_size() -> None:
    picture = Image.effect_noise((8, 8), 80)
    big = [picture.resize((side, side), Image.Resampling.BICUBIC) for side in (64, 96)]
    one, other = (
        rows(torch.frombuffer(bytearray(p.tobytes()), dtype=torch.uint8).view(1, 1, *p.size)) for p in big
    )
    assert float((one * other).sum()) > 0.999


def test_rows_are_in_the_order_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = noise(11, 1, 20, 20)
    whole = rows(pixels)
    monkeypatch.setattr(module, "BATCH", 4)
    torch.testing.assert_close(rows(pixels), whole)


def test_a_black_image_is_a_row_of_zeros() -> None:
    assert not rows(torch.zeros(2, 3, 20, 20, dtype=torch.uint8)).any()


def test_metal_gets_rows_that_the_cpu_has_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """It shrinks images only by whole factors (pytorch/pytorch#96056)."""
    metal, real, dimensions = torch.device("mps"), Tensor.to, list[int]()

    def to(self: Tensor, *arguments: Any, **named: Any) -> Tensor:
        if metal not in arguments:
            return real(self, *arguments, **named)
        dimensions.append(self.ndim)
        return self

    monkeypatch.setattr(Tensor, "to", to)
    pixels = noise(3, 1, 28, 28)
    found = pixel_rows(ImageSet("some", pixels, ["0", "1", "2"]), metal)
    assert dimensions == [2]  # rows, no images
    assert torch.equal(found, rows(pixels))
