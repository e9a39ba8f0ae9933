"""Colors, gray levels, blur and noise of views, beside torchvision's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from ebsc_core.data.views.apply import turn_hue_
from ebsc_core.data.views.parameters import draw_parameters
from support.views import (
    draw,
    drawn_from,
    luma,
    noise_images,
    only,
    seeded,
    shapes,
    unit,
)


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
