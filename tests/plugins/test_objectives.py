from __future__ import annotations

from math import cos, exp, log, pi

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from ebsc_core.interfaces import Backbone, Objective
from ebsc_plugins.objectives.byol import BYOL
from ebsc_plugins.objectives.simclr import SimCLR, nt_xent


class Tiny(Backbone):
    def __init__(self) -> None:
        super().__init__()
        self.width = 6
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def build(kind: type[Objective], **options: float) -> Objective:
    return kind(kind.Options(hidden=8, width=4, **options), Tiny())


def views(batch: int = 5) -> tuple[Tensor, Tensor]:
    return torch.rand(batch, 1, 4, 4), torch.rand(batch, 1, 4, 4)


def flat(modules: list[nn.Module]) -> Tensor:
    return torch.cat([p.detach().flatten() for module in modules for p in module.parameters()])


both = pytest.mark.parametrize("kind", [SimCLR, BYOL])


@both
@pytest.mark.parametrize("batch", [2, 5])
def test_forward_gives_a_loss_features_and_unit_length_embeddings(kind: type[Objective], batch: int) -> None:
    found = build(kind)(*views(batch))
    assert found.loss.shape == ()
    assert bool(torch.isfinite(found.loss))
    for features, embeddings in zip(found.features, found.embeddings, strict=True):
        assert features.shape == (batch, 6)
        assert embeddings.shape == (batch, 4)
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(batch))


@both
def test_each_view_has_its_own_half(kind: type[Objective]) -> None:
    objective, (a, b) = build(kind).eval(), views()
    found = objective(a, b)
    for features, view in zip(found.features, (a, b), strict=True):
        torch.testing.assert_close(features, objective.backbone(view))


@both
def test_gradients_reach_the_backbone(kind: type[Objective]) -> None:
    objective = build(kind)
    objective(*views()).loss.backward()
    for parameter in objective.backbone.parameters():
        assert parameter.grad is not None
    assert sum(float(p.grad.abs().sum()) for p in objective.backbone.parameters()) > 0


@both
def test_the_order_of_the_views_does_not_matter(kind: type[Objective]) -> None:
    objective, (a, b) = build(kind).eval(), views()
    torch.testing.assert_close(objective(a, b).loss, objective(b, a).loss)


@both
def test_bf16_gives_a_finite_loss_close_to_that_of_float32(kind: type[Objective]) -> None:
    objective, (a, b) = build(kind).eval(), views()
    exact = objective(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        found = objective(a, b)
    assert found.loss.dtype == torch.float32
    assert found.embeddings[0].dtype == torch.float32
    torch.testing.assert_close(found.loss, exact.loss, rtol=0.05, atol=0.05)
    torch.testing.assert_close(found.embeddings[0].norm(dim=1), torch.ones(5), rtol=0, atol=0.01)


@both
def test_a_perfect_reconstruction_agrees_better_than_a_wrong_one(kind: type[Objective]) -> None:
    objective = build(kind).eval()
    target = F.normalize(torch.randn(6, 4), dim=1)
    if isinstance(objective, BYOL):
        objective.predictor = nn.Identity()
    perfect, wrong = objective.agreement(3 * target, target), objective.agreement(-target, target)
    assert perfect.item() < wrong.item()


@both
def test_agreement_has_a_gradient_for_the_reconstruction(kind: type[Objective]) -> None:
    objective = build(kind)
    reconstruction = torch.randn(6, 4, requires_grad=True)
    objective.agreement(reconstruction, F.normalize(torch.randn(6, 4), dim=1)).backward()
    assert reconstruction.grad is not None
    assert float(reconstruction.grad.abs().sum()) > 0


def slow_nt_xent(a: list[list[float]], b: list[list[float]], temperature: float) -> float:
    rows, n = a + b, len(a)

    def similarity(i: int, j: int) -> float:
        return exp(sum(x * y for x, y in zip(rows[i], rows[j], strict=True)) / temperature)

    total = 0.0
    for i in range(2 * n):
        partner = i + n if i < n else i - n
        others = sum(similarity(i, j) for j in range(2 * n) if j != i)
        total -= log(similarity(i, partner) / others)
    return total / (2 * n)


@given(
    n=st.integers(1, 6),
    width=st.integers(1, 5),
    temperature=st.floats(0.05, 2),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=40, deadline=None)
def test_nt_xent_agrees_with_the_double_loop(n: int, width: int, temperature: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = F.normalize(torch.randn(2, n, width, generator=generator, dtype=torch.float64), dim=2)
    expected = slow_nt_xent(a.tolist(), b.tolist(), temperature)
    assert nt_xent(a, b, temperature).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_nt_xent_at_a_tiny_temperature_does_not_overflow() -> None:
    a = F.normalize(torch.randn(8, 4), dim=1)
    assert nt_xent(a, a, 1e-3).item() == pytest.approx(0, abs=1e-4)


def test_nt_xent_of_views_of_different_shapes_is_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        nt_xent(torch.ones(3, 2), torch.ones(4, 2), 0.5)


def byol(**options: float) -> BYOL:
    objective = build(BYOL, **options)
    assert isinstance(objective, BYOL)
    return objective


def test_byol_loss_is_its_formula() -> None:
    objective, (a, b) = byol().eval(), views()
    expected = torch.zeros(())
    for one, other in ((a, b), (b, a)):
        projection = objective.projector(objective.backbone(one))
        prediction = F.normalize(objective.predictor(projection), dim=1)
        target = F.normalize(objective.teacher(other), dim=1)
        expected = expected + (prediction - target).square().sum(dim=1).mean()
    torch.testing.assert_close(objective(a, b).loss, expected)


def test_the_teacher_starts_as_a_copy_and_gets_no_gradient() -> None:
    objective = byol()
    assert torch.equal(flat([objective.teacher]), flat([objective.backbone, objective.projector]))
    objective(*views()).loss.backward()
    assert all(p.grad is None for p in objective.teacher.parameters())
    assert not any(p.requires_grad for p in objective.teacher.parameters())


def test_the_teacher_follows_by_the_momentum_which_ends_at_1() -> None:
    objective = byol(momentum=0.8)
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


def test_byol_agreement_does_not_pull_on_its_target() -> None:
    target = F.normalize(torch.randn(6, 4), dim=1).requires_grad_()
    reconstruction = torch.randn(6, 4, requires_grad=True)
    byol().agreement(reconstruction, target).backward()
    assert target.grad is None
