from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ebsc_core.data.features.store import FeatureTable
from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.plugins.interfaces import Backbone
from ebsc_core.training import extract as module
from ebsc_core.training.extract import feature_blocks, finite
from ebsc_core.utils.errors import ComponentError, TrainingError
from ebsc_core.utils.progress import Progress
from ebsc_plugins.objectives.simclr import SimCLR, SimCLROptions

CPU = torch.device("cpu")
WIDTH = 8 * 4


class Noisy(Backbone):
    """Pixels, through layers that behave otherwise in training."""

    def __init__(self) -> None:
        super().__init__()
        self.width = WIDTH
        self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(WIDTH), nn.Dropout(0.5))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def extract(
    backbone: Backbone, objective: SimCLR | None, images: ImageSet, progress: Progress | None = None
) -> FeatureTable:
    """All blocks in one."""
    tables = list(feature_blocks(backbone, objective, images, CPU, progress or Progress()))
    embeddings = [table.embeddings for table in tables if table.embeddings is not None]
    features = torch.cat([table.features for table in tables])
    return FeatureTable(features, torch.cat(embeddings) if embeddings else None)


@pytest.fixture
def images() -> ImageSet:
    pixels = torch.randint(0, 256, (11, 1, 8, 4), dtype=torch.uint8)
    return ImageSet("some", pixels, [str(i) for i in range(11)])


@pytest.fixture
def objective() -> SimCLR:
    return SimCLR(SimCLROptions(hidden=8, width=4), Noisy())


class Large(Noisy):
    """A network that has memory for ``most`` images."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(images)


@pytest.mark.parametrize("most", [1, 2, 5, 11])
def test_as_many_images_at_once_as_memory_allows(images: ImageSet, most: int) -> None:
    said: list[str] = []
    progress = Progress()
    progress.note = said.append  # type: ignore[method-assign]
    table = extract(Large(most), None, images, progress)
    assert torch.equal(table.features, extract(Noisy(), None, images).features)
    halved = {11: [], 5: [5], 2: [5, 2], 1: [5, 2, 1]}[most]
    assert [int(line.split()[1]) for line in said] == halved


def test_where_no_single_image_fits_the_error_remains(images: ImageSet) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        extract(Large(0), None, images)


def test_features_are_those_of_each_image_in_order_without_augmentation(images: ImageSet) -> None:
    backbone = Noisy()
    table = extract(backbone, None, images)
    torch.testing.assert_close(table.features * (1 + 1e-5) ** 0.5, images.images.flatten(1) / 255)
    assert table.features.dtype == torch.float32
    assert table.embeddings is None


def test_embeddings_are_unit_length_projections(images: ImageSet, objective: SimCLR) -> None:
    table = extract(objective.backbone, objective, images)
    assert table.embeddings is not None
    assert table.embeddings.shape == (11, 4)
    torch.testing.assert_close(table.embeddings.norm(dim=1), torch.ones(11))
    with torch.no_grad():
        torch.testing.assert_close(objective.eval().embed(table.features), table.embeddings)


def test_layers_are_in_evaluation_mode_and_learn_nothing(images: ImageSet, objective: SimCLR) -> None:
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    extract(objective.train().backbone, objective, images)
    assert not objective.backbone.training
    for name, value in objective.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("batch", [1, 4, 11])
def test_the_batch_size_changes_nothing(
    images: ImageSet, objective: SimCLR, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    whole = extract(objective.backbone, objective, images)
    monkeypatch.setattr(module, "BATCH", batch)
    parts = extract(objective.backbone, objective, images)
    torch.testing.assert_close(parts.features, whole.features)
    torch.testing.assert_close(parts.embeddings, whole.embeddings)


def test_a_model_can_be_trained_on_what_comes_out(images: ImageSet) -> None:
    features = extract(Noisy(), None, images).features
    layer = nn.Linear(WIDTH, 1)
    layer(features).sum().backward()
    assert layer.weight.grad is not None


def test_progress_counts_every_image(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 4)
    heard: list[int] = []

    class Heard(Progress):
        def start(self, stage: str, total: int, unit: str) -> None:
            heard.append(total)

        def advance(self, done: int, figures: object = None) -> None:
            heard.append(done)

    extract(Noisy(), None, images, Heard())
    assert heard == [11, 4, 8, 11]


def test_bf16_rounds_the_features_of_the_backbone_alone(images: ImageSet) -> None:
    class Linear(Backbone):
        width = 8

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(WIDTH, 8))

        def forward(self, images: Tensor) -> Tensor:
            return self.layers(images)

    backbone = Linear()
    (exact,) = feature_blocks(backbone, None, images, CPU, Progress())
    (rounded,) = feature_blocks(backbone, None, images, CPU, Progress(), bf16=True)
    assert rounded.features.dtype == torch.float32
    assert not torch.equal(rounded.features, exact.features)
    torch.testing.assert_close(rounded.features, exact.features, rtol=0.05, atol=0.02)


def test_rows_that_are_not_finite_are_named() -> None:
    sound, broken = torch.ones(3, 2), torch.tensor([[1.0, 2.0], [torch.nan, 0.0], [1.0, 1.0]])
    assert len(list(finite([FeatureTable(sound, sound), FeatureTable(sound, None)]))) == 2
    with pytest.raises(TrainingError, match="the backbone's features are not finite; do this"):
        list(finite([FeatureTable(sound, sound), FeatureTable(broken, sound)], "; do this"))
    with pytest.raises(TrainingError, match="the objective's embeddings are not finite; do this"):
        list(finite([FeatureTable(sound, broken / 0)], "; do this"))


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda x: (x, x), "forward returned a tuple, not a tensor"),
        (lambda x: None, "forward returned a NoneType, not a tensor"),
        (
            lambda x: x[:, :3],
            r"forward returned features of shape \(11, 3\) for 11 images and a width of 32, not \(11, 32\)",
        ),
        (lambda x: x[1:], r"forward returned features of shape \(10, 32\) for 11 images"),
        (lambda x: x[:, :, None, None], r"forward returned features of shape \(11, 32, 1, 1\)"),
    ],
)
def test_features_of_another_shape_are_refused_by_the_name_of_the_backbone(
    images: ImageSet, returned: Callable[[Tensor], Any], said: str
) -> None:
    class Other(Noisy):
        def forward(self, images: Tensor) -> Tensor:
            return returned(super().forward(images))

    with pytest.raises(ComponentError, match=f"backbone Other: {said}"):
        extract(Other(), None, images)


def test_a_backbone_without_width_or_network_is_refused_by_its_name(images: ImageSet) -> None:
    backbone = Noisy()
    del backbone.width
    with pytest.raises(ComponentError, match="backbone Noisy: it has no width; set it"):
        extract(backbone, None, images)
    backbone.for_inference = lambda: None  # type: ignore[assignment,method-assign,return-value]
    with pytest.raises(ComponentError, match="backbone Noisy: for_inference returned a NoneType"):
        extract(backbone, None, images)
