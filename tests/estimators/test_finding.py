"""Duplicates, outliers and similar images of an estimator are those of the command."""

from __future__ import annotations

import numpy as np
import pytest

from ebsc_core import EBSC, EnergySubspaceClustering
from ebsc_core.utils.errors import EbscError
from support.photographs import photographs


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    found = photographs(60, 16)
    found[40] = found[4]
    return found


def test_of_images_in_memory(images: np.ndarray) -> None:
    model = EBSC(n_clusters=3, backbone="identity", epochs=0, coefficients="knn").fit(images)
    (group,) = model.find_duplicates(images).groups
    assert [(one.position, one.image, one.kind) for one in group] == [(4, "4", "keep"), (40, "40", "exact")]
    said = "were in memory, and are in no known file; give those of `fit` as `images`; the rows alone"
    with pytest.warns(UserWarning, match=said):
        model.find_duplicates()
    for position in (4, np.int64(4)):
        assert model.find_similar(position, top=1)[0].position == 40
    scores = [one.score for one in model.find_outliers(top=60)]
    assert len(scores) == 60
    assert scores == sorted(scores, reverse=True)
    for wrong, said in (
        (lambda: model.find_duplicates(images[:5]), "there are 5 images, and 60 were fitted"),
        (lambda: model.find_outliers(top=0), "`top` is 0"),
        (lambda: model.find_outliers(2.5), "`top` is 2.5; give a whole number from 1"),
        (lambda: model.find_similar(4, top=3.0), "`top` is 3.0; give a whole number from 1"),
        (lambda: model.find_similar("nothing"), "no image of"),
    ):
        with pytest.raises(EbscError, match=said):
            wrong()


def test_of_rows(images: np.ndarray) -> None:
    rows = images.reshape(60, -1).astype(np.float32)
    model = EnergySubspaceClustering(n_clusters=3, coefficients="knn", random_state=0).fit(rows)
    (group,) = model.find_duplicates().groups
    assert [(one.position, one.kind) for one in group] == [(4, "keep"), (40, "exact")]
    positions, cosines = model.find_similar(rows[4:5], top=3)
    assert set(positions[:2]) == {4, 40}
    assert cosines[:2] == pytest.approx(1, abs=1e-5)
    first, *_ = model.find_outliers(top=5)
    assert first.own_share is not None
    for wrong, said in (
        (lambda: model.find_similar(rows[:2]), "X has 2 rows; give one"),
        (lambda: model.find_outliers(2.5), "`top` is 2.5; give a whole number from 1"),
        (lambda: model.find_similar(rows[:1], top=3.0), "`top` is 3.0; give a whole number from 1"),
    ):
        with pytest.raises(EbscError, match=said):
            wrong()
