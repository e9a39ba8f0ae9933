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

from ebsc_core.data.views.apply import apply_view, draw_view, sampling_grid, turn_hue_
from ebsc_core.data.views.options import COLOR_VIEWS, GRAY_VIEWS, ViewOptions
from ebsc_core.data.views.parameters import LUMA, affine_matrices, draw_parameters

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


@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_agrees_with_torchvision(channels: int) -> None:
    images = noise_images(16, channels, high=150)
    views = draw(images, only(brightness=0.5))
    factors = views.mean((1, 2, 3)) / unit(images).mean((1, 2, 3))
    assert 0.5 <= factors.min() < 0.75
    assert 1.25 < factors.max() <= 1.5
    for image, view, factor in zip(unit(images), views, factors.tolist(), strict=True):
        torch.testing.assert_close(view, tv.adjust_brightness(image, factor), rtol=0, atol=1e-4)


def test_bright_pixels_saturate_as_in_torchvision() -> None:
    images = noise_images(16)
    images[:, :, 0, 0] = 10  # a dark pixel tells the factor
    views = draw(images, only(brightness=0.9))
    factors = views[:, 0, 0, 0] * 255 / 10
    assert factors.max() > 1.3
    for image, view, factor in zip(unit(images), views, factors.tolist(), strict=True):
        torch.testing.assert_close(view, tv.adjust_brightness(image, factor), rtol=0, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_contrast_agrees_with_torchvision(channels: int) -> None:
    images = noise_images(16, channels, low=70, high=180)
    if channels == 3:
        images[:, 0] //= 2  # so that the plain mean is not the grey mean
    views = draw(images, only(contrast=0.4))
    factors = views[:, 0].flatten(1).std(1) / unit(images)[:, 0].flatten(1).std(1)
    assert 0.6 <= factors.min() < 0.85
    assert 1.15 < factors.max() <= 1.401
    for image, view, factor in zip(unit(images), views, factors.tolist(), strict=True):
        torch.testing.assert_close(view, tv.adjust_contrast(image, factor), rtol=0, atol=1e-3)


def test_brightness_comes_before_contrast() -> None:
    images = noise_images(16, 1, low=80, high=120)
    views = draw(images, only(brightness=0.4, contrast=0.4))
    before, after = unit(images).flatten(1), views.flatten(1)
    brightness = after.mean(1) / before.mean(1)
    contrast = after.std(1) / before.std(1) / brightness
    assert ((brightness - 1).abs() < 0.401).all()
    assert ((contrast - 1).abs() < 0.401).all()
    for image, view, b, c in zip(unit(images), views, brightness.tolist(), contrast.tolist(), strict=True):
        expected = tv.adjust_contrast(tv.adjust_brightness(image, b), c)
        torch.testing.assert_close(view, expected, rtol=0, atol=1e-4)


def test_saturation_agrees_with_torchvision() -> None:
    images = noise_images(16, low=90, high=165)
    views = draw(images, only(saturation=0.5))
    spread, before = (batch.amax(1) - batch.amin(1) for batch in (views, unit(images)))
    factors = spread.mean((1, 2)) / before.mean((1, 2))
    assert 0.5 <= factors.min() < 0.75
    assert 1.25 < factors.max() <= 1.501
    for image, view, factor in zip(unit(images), views, factors.tolist(), strict=True):
        torch.testing.assert_close(view, tv.adjust_saturation(image, factor), rtol=0, atol=1e-3)


def test_gray_agrees_with_torchvision() -> None:
    images = noise_images(32)
    gray = tv.rgb_to_grayscale(unit(images), num_output_channels=3)
    torch.testing.assert_close(draw(images, only(gray_prob=1)), gray, rtol=0, atol=1e-3)
    sometimes = draw(images, only(gray_prob=0.5, jitter_prob=0))
    is_gray = (sometimes.amax(1) - sometimes.amin(1)).amax((1, 2)) < 1e-4
    assert 6 < int(is_gray.sum()) < 26
    torch.testing.assert_close(sometimes[~is_gray], unit(images)[~is_gray], rtol=0, atol=2e-5)


def test_hue_keeps_luma_and_grays_but_turns_colors() -> None:
    images = noise_images(16, low=100, high=156)
    images[:, :, :5] = images[:, :1, :5]  # some grey pixels
    views = draw(images, only(hue=0.3))
    torch.testing.assert_close(luma(views), luma(unit(images)), rtol=0, atol=1e-4)
    torch.testing.assert_close(views[:, :, :5], unit(images)[:, :, :5], rtol=0, atol=1e-4)
    assert (views - unit(images))[:, :, 5:].abs().mean() > 0.03


def test_hue_turns_red_all_the_way_round() -> None:
    red = torch.zeros(64, 3, 8, 8, dtype=torch.uint8)
    red[:, 0] = 200
    views = draw(red, only(hue=0.5))[:, :, 0, 0]
    strongest = set(views.argmax(1).tolist())
    assert strongest == {0, 1, 2}


@settings(deadline=None, max_examples=25)
@given(shape=shapes, levels=st.sampled_from([2, 4, 256]), seed=st.integers(0, 1000))
def test_exact_hue_agrees_with_torchvision(shape: tuple[int, ...], levels: int, seed: int) -> None:
    """Few levels make greys and ties of two channels, where formulas of the hue part ways."""
    generator = seeded(seed)
    images = torch.randint(0, levels, (shape[0], 3, *shape[2:]), generator=generator) / (levels - 1)
    turns = torch.rand(len(images), generator=generator) - 0.5
    expected = torch.stack(
        [tv.adjust_hue(image, turn) for image, turn in zip(images, turns.tolist(), strict=True)]
    )
    turn_hue_(images, turns)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)


def test_exact_hue_turns_by_what_the_other_would_and_changes_nothing_else() -> None:
    images, options = noise_images(16), only(hue=0.2, gray_prob=0.3, crop=0.5)
    exact = options.model_copy(update={"exact_hue": True})
    generator = seeded()
    parameters = draw_parameters(images.shape, exact, generator)
    assert torch.equal(generator.get_state(), drawn_from(images.shape, options).get_state())
    expected = draw(images, options.model_copy(update={"hue": 0.0}))
    for view, turn in zip(expected, parameters.turn.tolist(), strict=True):
        view.copy_(tv.adjust_hue(view, turn))
    torch.testing.assert_close(draw(images, exact), expected, rtol=0, atol=1e-4)
    assert -0.2 <= parameters.turn.min() < -0.1
    assert 0.1 < parameters.turn.max() <= 0.2


def test_color_options_leave_gray_images_alone() -> None:
    images = noise_images(8, channels=1)
    view = draw(images, only(saturation=0.9, hue=0.4, gray_prob=1))
    torch.testing.assert_close(view, unit(images), rtol=0, atol=2e-5)


def test_jitter_is_the_share_of_images_whose_colors_change() -> None:
    images = noise_images(1, low=60, high=120).expand(400, -1, -1, -1)
    every = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
    changed = (draw(images, only(**every, jitter_prob=0.3)) - unit(images)).abs().amax((1, 2, 3)) > 1e-3
    assert 80 < int(changed.sum()) < 160
    torch.testing.assert_close(draw(images, only(**every, jitter_prob=0)), unit(images), rtol=0, atol=2e-5)


# -- blur and noise ------------------------------------------------------------------------------


def test_blur_agrees_with_torchvision_for_some_width() -> None:
    images = noise_images(8, 3, 64, 90)
    views = draw(images, only(blur_prob=1))
    sigmas = []
    inside = (..., slice(4, -4), slice(4, -4))
    for image, view in zip(unit(images), views, strict=True):
        errors = {
            sigma: float((tv.gaussian_blur(image, [7, 7], [sigma, sigma]) - view)[inside].abs().max())
            for sigma in torch.linspace(0.1, 2, 150).tolist()
        }
        sigmas.append(min(errors, key=lambda sigma: errors[sigma]))
        assert errors[sigmas[-1]] < 0.02
    assert max(sigmas) - min(sigmas) > 0.5


def test_blur_leaves_the_images_it_was_not_drawn_for() -> None:
    images = noise_images(64, 1, 24, 24)
    views = draw(images, only(blur_prob=0.5))
    same = (views - unit(images)).abs().amax((1, 2, 3)) < 1e-4
    assert 16 < int(same.sum()) < 48


def test_blur_keeps_even_images_even() -> None:
    even = torch.full((4, 3, 8, 8), 90, dtype=torch.uint8)
    torch.testing.assert_close(draw(even, only(blur_prob=1)), unit(even), rtol=0, atol=1e-4)


def test_noise_has_the_deviation_asked_for() -> None:
    images = torch.full((8, 1, 40, 40), 128, dtype=torch.uint8)
    difference = draw(images, only(noise=0.05)) - unit(images)
    assert abs(float(difference.std()) - 0.05) < 0.003
    assert abs(float(difference.mean())) < 0.003
