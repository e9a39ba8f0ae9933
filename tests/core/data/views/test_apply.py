"""Random views: what is switched off changes nothing, what is switched on does what torchvision does."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from ebsc_core.data.views.apply import apply_view, draw_view, sampling_grid
from ebsc_core.data.views.options import COLOR_VIEWS, GRAY_VIEWS, ViewOptions
from ebsc_core.data.views.parameters import affine_matrices, draw_parameters
from support.views import (
    ALL_ON,
    OFF,
    draw,
    noise_images,
    only,
    seeded,
    shapes,
    smooth_images,
    unit,
)


@settings(deadline=None, max_examples=25)
@given(shape=shapes, seed=st.integers(0, 1000))
def test_views_are_images_of_the_same_form_whatever_is_on(shape: tuple[int, ...], seed: int) -> None:
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded(seed))
    before = images.clone()
    view = draw(images, ALL_ON, seed)
    assert view.shape == images.shape
    assert view.dtype == torch.float32
    assert view.is_contiguous(memory_format=torch.channels_last)
    assert torch.isfinite(view).all()
    assert view.min() >= 0
    assert view.max() <= 1
    assert torch.equal(images, before)
    assert torch.equal(view, draw(images, ALL_ON, seed))


@settings(deadline=None, max_examples=20)
@given(shape=shapes, seed=st.integers(0, 1000))
def test_with_everything_off_a_view_is_the_image(shape: tuple[int, ...], seed: int) -> None:
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded(seed))
    view = draw(images, OFF, seed)
    torch.testing.assert_close(view, unit(images), rtol=0, atol=2e-5)
    assert torch.equal((view * 255).round().to(torch.uint8), images)


@pytest.mark.parametrize("options", [GRAY_VIEWS, COLOR_VIEWS, ALL_ON])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_of_a_batch_gets_its_own_view(options: ViewOptions, channels: int) -> None:
    images = noise_images(1, channels).expand(16, -1, -1, -1)
    views = draw(images, options)
    assert len({view.numpy().tobytes() for view in views}) == 16


@pytest.mark.parametrize(
    "options",
    [
        only(crop=0.5),
        only(aspect=2),
        only(flip=0.5),
        only(rotate=30),
        only(brightness=0.4),
        only(contrast=0.4),
        only(saturation=0.4),
        only(hue=0.1),
        only(gray_prob=0.5),
        only(hue=0.1, exact_hue=True),
        only(blur_prob=0.5),
        only(noise=0.1),
    ],
    ids=lambda options: ",".join(name for name, value in options if value != getattr(OFF, name)),
)
def test_each_operation_is_drawn_per_image_and_by_seed(options: ViewOptions) -> None:
    images = noise_images(1, high=128).expand(16, -1, -1, -1)
    views = draw(images, options)
    assert len({view.numpy().tobytes() for view in views}) > 1
    assert torch.equal(views, draw(images, options))
    assert not torch.equal(views, draw(images, options, seed=1))


def test_a_generator_gives_new_views_each_time() -> None:
    images, generator = noise_images(4), seeded()
    assert not torch.equal(draw_view(images, ALL_ON, generator), draw_view(images, ALL_ON, generator))


@settings(deadline=None, max_examples=25)
@given(shape=shapes, seed=st.integers(0, 1000), parts=st.integers(1, 4), exact_hue=st.booleans())
def test_views_of_parts_of_a_batch_are_the_views_of_the_batch(
    shape: tuple[int, ...], seed: int, parts: int, exact_hue: bool
) -> None:
    """So that processes which share a batch make together what one would make of it."""
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded(seed))
    options = ALL_ON.model_copy(update={"exact_hue": exact_hue})
    parameters = draw_parameters(images.shape, options, seeded(seed))
    cuts = [len(images) * part // parts for part in range(parts + 1)]
    views = [
        apply_view(images[start:stop], parameters.rows(slice(start, stop)), options)
        for start, stop in pairwise(cuts)
    ]
    torch.testing.assert_close(torch.cat(views), draw(images, options, seed), rtol=0, atol=2e-6)


def test_a_seed_means_the_views_that_results_were_published_with() -> None:
    """Whatever else changes: were other parameters drawn, the tables could not be repeated."""
    generator = seeded(7)
    first = draw_parameters(torch.Size((2, 3, 32, 32)), COLOR_VIEWS, generator)
    draw_parameters(torch.Size((2, 1, 28, 28)), GRAY_VIEWS, generator)
    last = draw_parameters(torch.Size((2, 3, 64, 64)), ALL_ON, generator)
    assert last.noise is not None
    drawn = [first.matrix[0, 0], first.mixing[0, 0], first.shift[0], last.matrix[0, 0], last.mixing[0, 0]]
    expected = [
        [-0.829564, 0.0, -0.091094],
        [1.418610, 0.091130, -0.385108],
        [-0.050399, -0.098945, -0.019216],
        [-0.674907, -0.383669, -0.038730],
        [0.810294, 0.236066, -0.172698],
    ]
    torch.testing.assert_close(torch.stack(drawn), torch.tensor(expected), rtol=0, atol=1e-5)
    assert float(last.sigma[0]) == pytest.approx(1e-3)
    assert float(last.noise[1, 2, 3, 4]) == pytest.approx(-0.059611, abs=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_makes_the_views_that_a_cpu_makes_and_is_not_waited_for() -> None:
    images, options = noise_images(8), ALL_ON.model_copy(update={"exact_hue": True})
    parameters = draw_parameters(images.shape, options, seeded())
    there = images.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        view = apply_view(there, parameters, options)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(view.cpu(), apply_view(images, parameters, options), rtol=0, atol=1e-4)


# -- geometry ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 3), height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 1000))
def test_the_sampling_grid_is_torch_s(n: int, height: int, width: int, seed: int) -> None:
    matrix = torch.randn(n, 2, 3, generator=seeded(seed))
    expected = torch.nn.functional.affine_grid(matrix, [n, 1, height, width], align_corners=False)
    torch.testing.assert_close(sampling_grid(matrix, height, width), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_flip_agrees_with_torchvision(channels: int) -> None:
    images = noise_images(32, channels)
    always = draw(images, only(flip=1))
    torch.testing.assert_close(always, unit(tv.horizontal_flip(images)), rtol=0, atol=2e-5)
    sometimes = draw(images, only(flip=0.5))
    kept = [
        torch.allclose(view, image, atol=1e-3) for view, image in zip(sometimes, unit(images), strict=True)
    ]
    flipped = [torch.allclose(view, image, atol=1e-3) for view, image in zip(sometimes, always, strict=True)]
    assert 6 < sum(kept) < 26
    assert sum(kept) + sum(flipped) == 32


@pytest.mark.parametrize(("height", "width"), [(150, 150), (120, 200)])
def test_crop_and_flip_agree_with_torchvision(height: int, width: int) -> None:
    images = smooth_images(12, 3, height, width)
    options = only(crop=0.3, aspect=1.5, flip=0.5)
    views = draw(images, options)
    # The geometry is the first thing drawn, so the same seed gives the same matrices.
    for image, view, matrix in zip(
        images, views, affine_matrices(images.shape, options, seeded()), strict=True
    ):
        (sx, _, tx), (_, sy, ty) = matrix.tolist()
        left, top = (tx - abs(sx) + 1) / 2 * width, (ty - sy + 1) / 2 * height
        crop = tv.resized_crop(
            unit(image),
            round(top),
            round(left),
            round(sy * height),
            round(abs(sx) * width),
            [height, width],
            interpolation=InterpolationMode.BILINEAR,
            antialias=False,
        )
        expected = tv.horizontal_flip(crop) if sx < 0 else crop
        inside = (..., slice(4, -4), slice(4, -4))
        assert (view - expected)[inside].abs().max() < 0.05
        assert (view - expected)[inside].abs().mean() < 0.02
    assert (views - unit(images)).abs().mean() > 0.1


def test_crops_keep_to_the_image_and_to_the_options() -> None:
    options = only(crop=0.25, aspect=1.5, flip=0.5)
    matrix = affine_matrices(torch.Size((2000, 3, 20, 30)), options, seeded())
    sx, sy = matrix[:, 0, 0].abs(), matrix[:, 1, 1]
    tx, ty = matrix[:, 0, 2], matrix[:, 1, 2]
    assert (sx + tx.abs()).max() <= 1 + 1e-6
    assert (sy + ty.abs()).max() <= 1 + 1e-6
    # Clamping a side to the image can take at most the aspect's share off the area.
    assert (sx * sy).min() > 0.25 - 1e-6
    assert (sx * sy).min() < 0.3
    assert (sx * sy).max() > 0.9
    assert (sx / sy).max() <= 1.5 + 1e-6
    assert (sy / sx).max() <= 1.5 + 1e-6
    assert (sx / sy).max() > 1.4
    assert tx.min() < -0.3
    assert tx.max() > 0.3


def spot(height: int, width: int, y: float, x: float, sigma: float) -> Tensor:
    rows = torch.arange(height)[:, None] + 0.5 - y
    columns = torch.arange(width)[None, :] + 0.5 - x
    return (torch.exp(-(rows**2 + columns**2) / (2 * sigma**2)) * 255).round().to(torch.uint8)


def test_rotation_of_an_oblong_image_keeps_circles() -> None:
    circle = spot(60, 100, 30, 50, 6).expand(8, 1, -1, -1)
    views = draw(circle, only(rotate=180))
    center = (..., slice(20, 80))  # further out, the reflected border shows it again
    torch.testing.assert_close(views[center], unit(circle)[center], rtol=0, atol=0.02)


def test_rotation_turns_about_the_center_by_at_most_its_option() -> None:
    images = spot(60, 100, 30, 70, 3).expand(64, 1, -1, -1)
    views = draw(images, only(rotate=40))[:, 0]
    mass = views.sum((1, 2))
    y = (views.sum(2) @ (torch.arange(60) + 0.5)) / mass - 30
    x = (views.sum(1) @ (torch.arange(100) + 0.5)) / mass - 50
    torch.testing.assert_close(torch.hypot(x, y), torch.full((64,), 20.0), rtol=0, atol=0.2)
    angle = torch.atan2(y, x) * 180 / math.pi
    assert 30 < angle.max() < 40.5
    assert -40.5 < angle.min() < -30


def test_rotation_agrees_with_torchvision() -> None:
    images = smooth_images(6, 1, 90, 120)
    options = only(rotate=25)
    views = draw(images, options)
    for image, view, matrix in zip(
        images, views, affine_matrices(images.shape, options, seeded()), strict=True
    ):
        degrees = math.degrees(math.atan2(float(matrix[1, 0]) * 90 / 120, float(matrix[0, 0])))
        expected = tv.rotate(unit(image), degrees, interpolation=InterpolationMode.BILINEAR)
        center = (..., slice(25, -25), slice(25, -25))
        assert (view - expected)[center].abs().max() < 0.01


# -- colour: recover each image's factor from the view, then do the same with torchvision --------
