from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from ebsc_core.clustering.coefficients import auto_top_k
from ebsc_core.config.schema import RunConfig
from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.data.views.options import COLOR_VIEWS, GRAY_VIEWS
from ebsc_core.runs import resolve as resolve_module
from ebsc_core.runs.resolve import Preferences, ResolvedSettings, resolve
from ebsc_core.utils.errors import ConfigError


def images(n: int = 40, channels: int = 1, side: int = 8, classes: int | None = 4) -> ImageSet:
    pixels = torch.arange(n * channels * side**2).remainder(256).to(torch.uint8)
    labels = None if classes is None else np.arange(n) % classes
    return ImageSet("images", pixels.view(n, channels, side, side), [str(i) for i in range(n)], labels)


def decide(
    data: ImageSet, trainable: bool = True, preferred: str = "features", **config: object
) -> ResolvedSettings:
    return decide_with(Preferences(preferred), data, trainable, **config)


def decide_with(
    preferences: Preferences, data: ImageSet, trainable: bool = True, **config: object
) -> ResolvedSettings:
    backbone = nn.Linear(1, 1) if trainable else nn.Identity()
    return resolve(RunConfig.model_validate(config), data, data.info(), backbone, preferences)  # type: ignore[arg-type]


def test_clusters_default_to_the_number_of_classes_and_can_be_told():
    assert decide(images(classes=4)).n_clusters == 4
    assert decide(images(classes=4), n_clusters=7).n_clusters == 7


def test_clusters_to_be_found_do_not_hang_on_classes():
    found = [decide(images(900, classes=classes), n_clusters="auto") for classes in (None, 1, 4, 300)]
    assert all(resolved == found[0] for resolved in found)
    assert found[0].n_clusters is None
    assert found[0].top_k == auto_top_k(900, None) == 6
    assert decide(images(900), n_clusters="auto", top_k=7).top_k == 7
    with pytest.raises(ConfigError, match="one image alone"):
        decide(images(n=1, classes=1), n_clusters="auto")


def test_a_clusterer_that_finds_the_number_is_asked_for_none():
    itself = Preferences(finds_number=True)
    for classes, n_clusters in ((None, None), (4, None), (1, None), (4, 7), (None, "auto")):
        assert decide_with(itself, images(classes=classes), n_clusters=n_clusters).n_clusters is None
    with pytest.raises(ConfigError, match="one image alone"):
        decide_with(itself, images(n=1, classes=1))


@pytest.mark.parametrize(("classes", "n_clusters"), [(None, None), (1, None), (4, 41)])
def test_clusters_that_cannot_be(classes, n_clusters):
    with pytest.raises(ConfigError, match="`n_clusters`"):
        decide(images(classes=classes), n_clusters=n_clusters)


def test_one_image_alone():
    with pytest.raises(ConfigError, match="one image alone has nothing to be compared with"):
        decide(images(n=1, classes=1))


def test_training_needs_epochs_and_parameters():
    assert decide(images()).trains
    assert not decide(images(), train={"epochs": 0}).trains
    assert not decide(images(), trainable=False).trains


def test_the_objective_prefers_rows_and_the_user_decides():
    assert decide(images()).express == "features"
    assert decide(images(), preferred="embeddings").express == "embeddings"
    assert decide(images(), express="embeddings").express == "embeddings"
    assert decide(images(), preferred="embeddings", express="features").express == "features"
    assert decide(images(), trainable=False).express == "features"
    with pytest.raises(ConfigError, match="trained objective"):
        decide(images(), trainable=False, express="embeddings")


def test_the_coefficient_model_prefers_whitening_and_the_user_decides():
    for wish in (True, False):
        whiten, joint = Preferences(whiten=wish), Preferences(joint_whiten=wish)
        assert decide_with(whiten, images()).whiten == wish
        assert decide_with(whiten, images(), whiten=not wish).whiten != wish
        assert decide_with(joint, images()).joint_whiten == wish
        assert decide_with(joint, images(), joint={"whiten": not wish}).joint_whiten != wish
    assert not decide_with(Preferences(whiten=True), images()).joint_whiten


def test_views_follow_the_images_and_yield_to_the_user():
    assert decide(images()).views == GRAY_VIEWS
    assert decide(images(channels=3)).views == COLOR_VIEWS
    assert decide(images(channels=3, side=64)).views.blur_prob == 0.5
    assert decide(images(), views={"flip": 0.5}).views.flip == 0.5
    with pytest.raises(ConfigError, match=r"views\.flp.*flip"):
        decide(images(), views={"flp": 0.5})


def test_small_data_gets_smaller_batches():
    assert decide(images(40)).batch_size == 40
    assert decide(images(4999, side=1)).batch_size == 128
    assert decide(images(5000, side=1)).batch_size == 256
    assert decide(images(5000, side=1), train={"batch_size": 64}).batch_size == 64


def test_settings_that_need_more_images_than_there_are():
    with pytest.raises(ConfigError, match=r"`train\.batch_size`"):
        decide(images(40), train={"batch_size": 41})
    with pytest.raises(ConfigError, match="top_k"):
        decide(images(40), top_k=40)
    assert decide(images(40), top_k=39, train={"batch_size": 40}).top_k == 39


def test_more_neighbors_than_there_are_others():
    form = {"form": "nearest_neighbors", "n_neighbors": 40}
    with pytest.raises(
        ConfigError, match=r"affinity\.n_neighbors is 40 but each of 40 images has only 39 others"
    ):
        decide(images(40), affinity=form)
    decide(images(40), affinity=form | {"n_neighbors": 39})
    decide(images(40), affinity={"n_neighbors": 40})  # which the other form does not use
    with pytest.raises(ValidationError, match="n_neighbors"):
        decide(images(40), affinity={"n_neighbors": 0})


def shared(processes: int, n: int = 40, trainable: bool = True, batch_size: int | None = None) -> int:
    backbone = nn.Linear(1, 1) if trainable else nn.Identity()
    config, data = RunConfig.model_validate({"train": {"batch_size": batch_size}}), images(n)
    return resolve(config, data, data.info(), backbone, Preferences(), processes).batch_size  # type: ignore[arg-type]


def test_processes_share_a_batch_equally():
    assert [shared(processes) for processes in (1, 2, 3, 7)] == [40, 40, 39, 35]
    assert shared(8, n=200) == 128
    assert shared(3, batch_size=33) == 33
    assert shared(3, batch_size=32, trainable=False) == 32


@pytest.mark.parametrize(
    ("processes", "batch_size", "cure"),
    [
        (8, 30, "8 processes.*use 24 or 32$"),
        (3, 40, "use 39$"),
        (3, 2, "use 3$"),
        (50, 2, "start fewer$"),
        (50, None, "start fewer$"),
    ],
)
def test_a_batch_that_processes_cannot_share(processes, batch_size, cure):
    with pytest.raises(ConfigError, match=cure):
        shared(processes, batch_size=batch_size)


def test_a_dictionary_is_all_rows_unless_there_are_too_many(monkeypatch):
    assert decide(images(40)).dictionary_size is None
    assert decide(images(40), dictionary_size=39).dictionary_size == 39
    monkeypatch.setattr(resolve_module, "MAX_CLUSTERED", 40)
    monkeypatch.setattr(resolve_module, "DICTIONARY_SIZE", 30)
    assert decide(images(40)).dictionary_size is None
    assert decide(images(41)).dictionary_size == 30
    assert decide(images(41), dictionary_size=40).dictionary_size == 40


@pytest.mark.parametrize("size", [40, 41])
def test_a_dictionary_leaves_rows_over(size):
    with pytest.raises(ConfigError, match=f"dictionary_size is {size} but there are 40 images"):
        decide(images(40), dictionary_size=size)


def test_coefficients_are_over_the_dictionary():
    assert decide(images(400), dictionary_size=20).top_k == decide(images(20)).top_k
    with pytest.raises(ConfigError, match="each of 20 dictionary rows has only 19 others"):
        decide(images(400), dictionary_size=20, top_k=20)
    with pytest.raises(ConfigError, match="each of 20 dictionary rows"):
        decide(images(40), dictionary_size=20, affinity={"form": "nearest_neighbors", "n_neighbors": 20})


def test_every_two_of_too_many_rows_are_not_compared(monkeypatch):
    monkeypatch.setattr(resolve_module, "MAX_COMPARED", 30)
    form = {"form": "nearest_neighbors"}
    with pytest.raises(ConfigError, match="'nearest_neighbors' compares every two of 40 rows; use"):
        decide(images(40), affinity=form)
    decide(images(40), affinity=form, dictionary_size=30)
