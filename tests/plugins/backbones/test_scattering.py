"""Scattering features: their published shape, what they are invariant to, the subspace fitted to them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.plugins.interfaces import ImageInfo
from ebsc_core.plugins.registry import Kind, Registry
from ebsc_core.plugins.selection import check_options
from ebsc_core.utils.errors import ConfigError, DataError, EbscError, PartError
from ebsc_plugins.backbones.scattering import FRONTEND, Scattering, ScatteringOptions

Info = Callable[..., ImageInfo]
Noise = Callable[..., Tensor]
OneLine = Callable[[pytest.ExceptionInfo[EbscError]], str]


def build(info: ImageInfo, **options: Any) -> Scattering:
    return Scattering(ScatteringOptions(**options), info)


@pytest.fixture(scope="module")
def plain() -> Scattering:
    """All coefficients of images of 32×32."""
    return build(ImageInfo(1, 32, 32, (0.4,), (0.2,)), components=0)


def drawing(seed: int) -> Tensor:
    """A smooth figure ``(1, 1, 32, 32)`` in [0, 1] on a black ground, six pixels from every side."""
    coarse = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    return F.pad(F.interpolate(coarse, (20, 20), mode="bicubic", antialias=True).clamp(0, 1), (6, 6, 6, 6))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "expected"), [(16, 868), (32, 3472), (40, 5425)])
def test_two_orders_of_three_scales_and_eight_angles(
    info: Info, noise: Noise, size: int, expected: int, channels: int
) -> None:
    backbone = build(info(20, 28, channels), size=size, components=0)
    assert backbone.width == expected
    images = noise(2, 28, channels)[:, :, :20].float() / 255
    features = backbone(images.contiguous(memory_format=torch.channels_last))
    assert features.shape == (2, expected)
    torch.testing.assert_close(features, backbone(images))


def test_the_published_width_and_reduction(info: Info) -> None:
    backbone = build(info(28))
    assert (backbone.coefficients, backbone.width) == (3472, 500)
    assert "32x32, 3472 coefficients, 500 principal" in backbone.describe()
    assert "principal" not in build(info(28), components=0).describe()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), factor=st.floats(0.2, 1))
def test_the_largest_coefficient_of_a_channel_is_one_however_bright_the_image(
    plain: Scattering, seed: int, factor: float
) -> None:
    x = drawing(seed)
    features = plain(x)
    largest = features.view(217, 16).abs().amax(dim=1)
    torch.testing.assert_close(largest, torch.ones(217))
    torch.testing.assert_close(plain(factor * x), features, rtol=1e-3, atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), down=st.integers(-1, 1), right=st.integers(-1, 1))
def test_a_shift_moves_the_features_much_less_than_the_pixels(
    plain: Scattering, seed: int, down: int, right: int
) -> None:
    x = drawing(seed)
    y = x.roll((down, right), (2, 3))

    def change(a: Tensor, b: Tensor) -> float:
        return float((a - b).norm() / a.norm())

    assert change(plain(x), plain(y)) <= 0.6 * change(x, y)


def test_an_image_without_structure_has_only_its_mean(plain: Scattering) -> None:
    features = plain(torch.cat([torch.full((1, 1, 32, 32), 0.7), torch.zeros(1, 1, 32, 32)]))
    channels = features.view(2, 217, 16)
    torch.testing.assert_close(channels[0, 0], torch.ones(16))
    assert float(channels[0, 1:].abs().max()) < 0.01
    assert not channels[1].any()


def test_color_counts_as_gray(plain: Scattering) -> None:
    gray = drawing(0)
    torch.testing.assert_close(plain(gray.expand(-1, 3, -1, -1)), plain(gray), rtol=1e-3, atol=1e-3)
    red, green, blue = (drawing(seed) for seed in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    torch.testing.assert_close(plain(torch.cat([red, green, blue], dim=1)), plain(luma), rtol=1e-3, atol=1e-3)


def test_images_of_another_size_are_brought_to_it(plain: Scattering) -> None:
    large = F.interpolate(drawing(0), (64, 64), mode="bilinear")
    small = F.interpolate(large, (32, 32), mode="bilinear", antialias=True)
    torch.testing.assert_close(plain(large), plain(small))


def test_the_subspace_is_the_uncentered_principal_one(info: Info, noise: Noise) -> None:
    images = noise(40, 16)
    backbone = build(info(16), size=16, components=15)
    backbone.fit(images)
    all_of_them = build(info(16), size=16, components=0)(images.float() / 255)
    features = backbone(images.float() / 255)
    _, singular, right = torch.linalg.svd(all_of_them.double(), full_matrices=False)
    torch.testing.assert_close(
        features.double().square().sum(), singular[:15].square().sum(), rtol=1e-5, atol=0
    )
    # The first is apart from the others, whose order noise leaves to chance.
    expected = all_of_them.double() @ right[0]
    torch.testing.assert_close(features[:, 0].double().abs(), expected.abs(), rtol=1e-3, atol=1e-3)


def test_the_wavelets_follow_to_the_images_device(info: Info) -> None:
    backbone = build(info(16), size=16, components=5).to("meta")
    assert {buffer.device.type for buffer in backbone.buffers()} == {"meta"}
    assert len(list(backbone.buffers())) > 20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same(info: Info, noise: Noise) -> None:
    images = noise(30, 16).float() / 255
    here = build(info(16), size=16, components=0)
    torch.testing.assert_close(here.cuda()(images.cuda()).cpu(), here.cpu()(images), rtol=1e-3, atol=1e-3)


def test_it_has_nothing_to_train(info: Info) -> None:
    assert not list(build(info(28)).parameters())


def test_too_many_components_are_refused(info: Info, noise: Noise, one_line: OneLine) -> None:
    with pytest.raises(PartError, match=r"869.*16x16.*868 coefficients") as wrong_part:
        build(info(16), size=16, components=869)
    one_line(wrong_part)
    with pytest.raises(DataError, match=r"there are 4; set backbone\.components=4") as wrong_data:
        build(info(16), size=16, components=5).fit(noise(4, 16))
    one_line(wrong_data)
    with pytest.raises(DataError, match=r"backbone\.fit_images is 4") as wrong_data:
        build(info(16), size=16, components=5, fit_images=4).fit(noise(30, 16))
    one_line(wrong_data)


@pytest.mark.parametrize("size", [8, 20, -32])
def test_a_size_the_wavelets_do_not_fit_is_refused(size: int) -> None:
    part = Registry().find(Kind.BACKBONE, "scattering")
    with pytest.raises(ConfigError, match=r"backbone\.size"):
        check_options(part, {"size": size}, "backbone")


def test_without_kymatio_the_command_to_install_it_is_named(
    info: Info, monkeypatch: pytest.MonkeyPatch, one_line: OneLine
) -> None:
    for name in ("kymatio", FRONTEND):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PartError, match=r"pip install 'ebsc\[scattering\]'") as error:
        build(info(28))
    assert "kymatio" in one_line(error)


def test_a_run_on_scattering_features(ebsc: Callable[..., Any], tmp_path: Path) -> None:
    given = ("--backbone", "scattering", "--epochs", "0", "--limit", "250", "--coefficients", "knn")
    refused = ebsc("run", *given, "--out", "refused")
    assert refused.code == 2
    assert "backbone.components=250" in refused.err
    assert not (tmp_path / "refused").exists()
    components = ("--set", "backbone.components=100")
    for name in ("first", "again"):
        done = ebsc("run", *given, *components, "--out", name)
        assert done.code == 0, done.err
    assert "features reused" in done.out
    first, again = (h5py.File(tmp_path / name / "features.h5")["features"][:] for name in ("first", "again"))
    assert first.shape == (250, 100)
    assert np.array_equal(first, again)
    assert json.loads((tmp_path / "first" / "metrics.json").read_text())["scores"]["acc"] > 0.6
