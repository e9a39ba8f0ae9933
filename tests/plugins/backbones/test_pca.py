"""Principal components of pixels: against scikit-learn's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import decomposition
from torch import Tensor

from ebsc_core.plugins.interfaces import ImageInfo
from ebsc_core.utils.errors import ComponentError, DataError, EbscError
from ebsc_plugins.backbones.pca import PCA, PCAOptions

Info = Callable[..., ImageInfo]
Noise = Callable[..., Tensor]
OneLine = Callable[[pytest.ExceptionInfo[EbscError]], str]


def fitted(info: ImageInfo, images: Tensor, **options: Any) -> PCA:
    backbone = PCA(PCAOptions(**options), info)
    backbone.fit(images)
    return backbone


def flat(images: Tensor) -> np.ndarray:
    return images.flatten(1).double().numpy() / 255


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("n", [60, 900], ids=["fewer images than pixels", "more"])
@pytest.mark.parametrize("channels", [1, 3])
def test_components_are_scikit_learns(info: Info, noise: Noise, whiten: bool, n: int, channels: int) -> None:
    images, more = noise(n, 9, channels), noise(7, 9, channels)
    backbone = fitted(info(9, channels=channels), images, components=20, whiten=whiten)
    theirs = decomposition.PCA(20, whiten=whiten, svd_solver="full").fit(flat(images))
    for x in (images, more):
        ours = backbone(x.float() / 255)
        assert ours.shape == (len(x), backbone.width) == (len(x), 20)
        np.testing.assert_allclose(ours.numpy(), theirs.transform(flat(x)), atol=1e-4)


def test_without_centring_inner_products_are_kept(info: Info, digits: Tensor) -> None:
    backbone = fitted(info(8), digits, components=61, centre=False)
    features, pixels = backbone(digits.float() / 255), digits.flatten(1).float() / 255
    torch.testing.assert_close(features @ features.T, pixels @ pixels.T, rtol=1e-4, atol=1e-4)
    few = fitted(info(8), digits, components=10, centre=False)(digits.float() / 255)
    torch.testing.assert_close(few, features[:, :10], rtol=1e-4, atol=1e-4)


def test_pixels_that_never_change_do_not_blow_up_when_whitened(info: Info, digits: Tensor) -> None:
    assert int((digits.flatten(1).float().std(dim=0) == 0).sum()) == 3
    features = fitted(info(8), digits, whiten=True)(digits.float() / 255)
    torch.testing.assert_close(features.std(dim=0)[:61], torch.ones(61))
    assert not features[:, 61:].any()


@pytest.mark.parametrize(("height", "width", "channels", "expected"), [(8, 8, 1, 64), (30, 20, 3, 500)])
def test_the_default_width_suits_the_images(
    info: Info, height: int, width: int, channels: int, expected: int
) -> None:
    backbone = PCA(PCAOptions(), info(height, width, channels))
    assert backbone.width == expected
    assert str(expected) in backbone.describe()


def test_the_announcement_says_what_was_asked_for(info: Info) -> None:
    assert "not centred, whitened" in PCA(PCAOptions(centre=False, whiten=True), info(8)).describe()


def test_only_some_images_are_fitted_to_where_there_are_more(info: Info, digits: Tensor) -> None:
    some = fitted(info(8), digits[:1001], components=5, fit_images=101)
    same = fitted(info(8), digits[:1001:10], components=5)
    assert torch.equal(some.directions, same.directions)


def test_more_components_than_pixels_are_refused(info: Info, one_line: OneLine) -> None:
    with pytest.raises(ComponentError, match=r"65.*64 values.*1x8x8") as error:
        PCA(PCAOptions(components=65), info(8))
    one_line(error)


def test_too_few_images_are_refused(info: Info, digits: Tensor, one_line: OneLine) -> None:
    with pytest.raises(DataError, match=r"there are 63; set backbone\.components=63") as error:
        fitted(info(8), digits[:63])
    one_line(error)
    with pytest.raises(DataError, match=r"backbone\.fit_images is 63") as error:
        fitted(info(8), digits, fit_images=63)
    one_line(error)


def test_a_run_on_principal_components(ebsc: Callable[..., Any], tmp_path: Path) -> None:
    given = ("--backbone", "pca", "--set", "backbone.components=30", "--coefficients", "knn")
    done = ebsc("run", *given, "--limit", "400", "--out", "run")
    assert done.code == 0, done.err
    assert "30 principal components of 64 pixel values" in done.out
    refused = ebsc("run", *given, "--limit", "29", "--out", "few")
    assert refused.code == 2
    assert "backbone.components=29" in refused.err
    assert not (tmp_path / "few").exists()
