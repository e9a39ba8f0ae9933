"""Predictors, stopped targets and the momentum teacher."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ebsc_core import Backbone
from ebsc_plugins.objectives.byol import BYOL
from ebsc_plugins.objectives.moco_v3 import MoCoV3
from ebsc_plugins.objectives.momentum import MomentumObjective
from ebsc_plugins.objectives.predictive import PredictiveObjective
from ebsc_plugins.objectives.simsiam import SimSiam

MakeViews = Callable[..., tuple[Tensor, Tensor]]

with_teacher = pytest.mark.parametrize("kind", [BYOL, MoCoV3])


def flat(modules: list[nn.Module]) -> Tensor:
    return torch.cat([p.detach().flatten() for module in modules for p in module.parameters()])


def distance(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square().sum(dim=1).mean()


def contrast(prediction: Tensor, target: Tensor) -> Tensor:
    """Algorithm 1 of MoCo v3 at τ = 0.2."""
    own = torch.stack([p @ t for p, t in zip(prediction, target, strict=True)])
    among = torch.stack([torch.logsumexp(target @ p / 0.2, dim=0) for p in prediction])
    return 2 * 0.2 * (among - own / 0.2).mean()


def half_angle(prediction: Tensor, target: Tensor) -> Tensor:
    return -F.cosine_similarity(prediction, target).mean() / 2


FORMULAS = [(BYOL, distance), (MoCoV3, contrast), (SimSiam, half_angle)]


def formula(
    objective: PredictiveObjective,
    score: Callable[[Tensor, Tensor], Tensor],
    a: Tensor,
    b: Tensor,
    stop: bool,
) -> Tensor:
    """The loss as the papers write it, one view at a time."""
    total = torch.zeros(())
    for one, other in ((a, b), (b, a)):
        prediction = objective.predictor(objective.projector(objective.backbone(one)))
        if isinstance(objective, MomentumObjective):
            target = objective.teacher(other)
        else:
            target = objective.projector(objective.backbone(other))
        target = F.normalize(target, dim=1)
        total = total + score(F.normalize(prediction, dim=1), target.detach() if stop else target)
    return total


@pytest.mark.parametrize(("kind", "score"), FORMULAS)
def test_loss_and_gradients_are_those_of_the_formula(
    build: Callable[..., PredictiveObjective],
    views: MakeViews,
    kind: type[PredictiveObjective],
    score: Callable[[Tensor, Tensor], Tensor],
) -> None:
    objective, (a, b) = build(kind).eval(), views()
    if isinstance(objective, MomentumObjective):
        with torch.no_grad():
            for parameter in objective.teacher.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    trains = [p for p in objective.parameters() if p.requires_grad]
    found, expected = objective(a, b).loss, formula(objective, score, a, b, stop=True)
    torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad(found, trains)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, trains), rtol=1e-4, atol=1e-6)


def test_simsiam_would_have_other_gradients_without_its_stop(
    build: Callable[..., SimSiam], views: MakeViews
) -> None:
    objective, (a, b) = build(SimSiam).eval(), views()
    weight = objective.projector[0].weight
    (stopped,) = torch.autograd.grad(objective(a, b).loss, weight)
    (through,) = torch.autograd.grad(formula(objective, half_angle, a, b, stop=False), weight)
    assert not torch.allclose(stopped, through, rtol=0.05)


def test_simsiam_projections_are_standardized_and_the_predictor_is_a_bottleneck(
    build: Callable[..., SimSiam],
) -> None:
    objective = build(SimSiam, width=12, bottleneck=3)
    projections = objective.projector(torch.randn(50, 6))
    torch.testing.assert_close(projections.mean(dim=0), torch.zeros(12), rtol=0, atol=1e-5)
    torch.testing.assert_close(projections.var(dim=0, correction=0), torch.ones(12), rtol=0.01, atol=0)
    assert sum(isinstance(layer, nn.Linear) for layer in objective.projector) == 3
    assert [p.shape for p in objective.predictor.parameters() if p.ndim == 2] == [(3, 12), (12, 3)]


@with_teacher
def test_the_teacher_starts_as_a_copy_and_gets_no_gradient(
    build: Callable[..., MomentumObjective], views: MakeViews, kind: type[MomentumObjective]
) -> None:
    objective = build(kind)
    assert torch.equal(flat([objective.teacher]), flat([objective.backbone, objective.projector]))
    objective(*views()).loss.backward()
    assert all(p.grad is None for p in objective.teacher.parameters())
    assert not any(p.requires_grad for p in objective.teacher.parameters())


@with_teacher
def test_the_teacher_follows_by_the_momentum_which_ends_at_1(
    build: Callable[..., MomentumObjective], kind: type[MomentumObjective]
) -> None:
    objective = build(kind, momentum=0.8)
    objective.before_training(10)
    expected = flat([objective.teacher])
    with torch.no_grad():
        for parameter in [*objective.backbone.parameters(), *objective.projector.parameters()]:
            parameter += torch.randn_like(parameter)
    student = flat([objective.backbone, objective.projector])
    for step in range(1, 11):
        momentum = 1 - (1 - 0.8) * (cos(pi * step / 10) + 1) / 2
        expected = momentum * expected + (1 - momentum) * student
        before = flat([objective.teacher])
        objective.after_step()
        torch.testing.assert_close(flat([objective.teacher]), expected)
    assert torch.equal(flat([objective.teacher]), before)  # the last step leaves it where it is
    assert torch.equal(flat([objective.backbone, objective.projector]), student)


@with_teacher
def test_the_teacher_knows_what_the_backbone_has_fitted(
    kind: type[MomentumObjective],
) -> None:
    """A run fits the backbone to the images after it has built the objective."""

    class Fitted(Backbone):
        width = 8

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(48, 8)
            self.register_buffer("center", torch.full((48,), torch.nan))

        def forward(self, images: Tensor) -> Tensor:
            return self.layer(images.flatten(1) - self.center)

    backbone = Fitted()
    objective = kind(kind.Options(hidden=8, width=4), backbone)
    backbone.center = torch.zeros(48)
    objective.before_training(10)
    loss = objective.train()(torch.rand(6, 3, 4, 4), torch.rand(6, 3, 4, 4)).loss
    assert loss.isfinite()
