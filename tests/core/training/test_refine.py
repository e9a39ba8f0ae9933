from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.config import RefineOptions
from ebsc_core.errors import TrainingError
from ebsc_core.progress import Progress
from ebsc_core.training.refine import refine
from ebsc_plugins.coefficients.energy import EnergyNetwork, EnergyOptions


class Losses(Progress):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []
        self.done = 0

    def advance(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        self.done = done
        if figures:
            self.seen.append(figures["loss"])


@pytest.fixture(scope="module")
def rows() -> Tensor:
    """Four random planes in ten dimensions, 40 unit rows of each."""
    generator = torch.Generator().manual_seed(1)
    planes = torch.linalg.qr(torch.randn(4, 10, 2, generator=generator)).Q
    points = torch.randn(4, 40, 2, generator=generator) @ planes.transpose(1, 2)
    return F.normalize(points.flatten(0, 1), dim=1)


def network() -> EnergyNetwork:
    torch.manual_seed(0)
    return EnergyNetwork(EnergyOptions(hidden=32), 10)


def weights(model: EnergyNetwork) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@torch.no_grad()
def loss(model: EnergyNetwork, rows: Tensor) -> float:
    return model.loss(rows, model.express(rows, rows, torch.arange(len(rows)))).item()


def test_the_loss_falls_on_subspaces(rows: Tensor) -> None:
    model, progress = network(), Losses()
    before = loss(model, rows)
    refine(model, rows, RefineOptions(steps=100, rows=128, lr=3e-3), 0, progress)
    assert loss(model, rows) < 0.7 * before
    assert progress.seen[-1] < progress.seen[0]
    assert progress.done == 100


def test_the_seed_decides(rows: Tensor) -> None:
    trained = []
    for seed in (0, 0, 1):
        model = network()
        refine(model, rows, RefineOptions(steps=5, rows=32), seed, Progress())
        trained.append(weights(model))
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])


def test_no_steps_change_nothing(rows: Tensor) -> None:
    model = network()
    refine(model, rows, RefineOptions(steps=0), 0, Progress())
    assert torch.equal(weights(model), weights(network()))


def test_fewer_rows_than_a_step_draws_are_enough(rows: Tensor) -> None:
    model = network()
    refine(model, rows[:6], RefineOptions(steps=3, rows=1024), 0, Progress())
    assert bool(torch.isfinite(weights(model)).all())
    assert not torch.equal(weights(model), weights(network()))


def test_the_rows_are_left_as_they_were(rows: Tensor) -> None:
    before = rows.clone()
    refine(network(), rows, RefineOptions(steps=2, rows=32), 0, Progress())
    assert torch.equal(rows, before)


def test_divergence_is_an_error_that_names_the_cure(rows: Tensor) -> None:
    with pytest.raises(TrainingError, match=r"refine\.lr"):
        refine(network(), rows, RefineOptions(steps=5, rows=32, lr=1e30), 0, Progress())
