"""The formulas: against lightly's, against slow loops, and what they leave unchanged."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import BarlowTwinsLoss, NegativeCosineSimilarity, NTXentLoss, VICRegLoss
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.plugins.interfaces import Objective
from ebsc_plugins.objectives.barlow_twins import BarlowTwins, barlow_twins
from ebsc_plugins.objectives.moco_v3 import MoCoV3, info_nce
from ebsc_plugins.objectives.simclr import nt_xent
from ebsc_plugins.objectives.simsiam import negative_cosine
from ebsc_plugins.objectives.vicreg import VICReg, vicreg

Loss = Callable[[Tensor, Tensor], Tensor]

OURS: dict[str, Loss] = {
    "nt-xent": lambda a, b: nt_xent(unit(a), unit(b), 0.2),
    "info-nce": lambda a, b: info_nce(unit(a), unit(b), 0.2),
    "cosine": lambda a, b: negative_cosine(unit(a), unit(b)),
    "barlow-twins": lambda a, b: barlow_twins(a, b, 5e-3),
    "vicreg": lambda a, b: vicreg(a, b, 25, 25, 1),
}
LIGHTLY: dict[str, Loss] = {
    "nt-xent": NTXentLoss(temperature=0.2),
    "cosine": NegativeCosineSimilarity(),
    "barlow-twins": BarlowTwinsLoss(lambda_param=5e-3),
    "vicreg": VICRegLoss(lambda_param=25, mu_param=25, nu_param=1),
}
each = pytest.mark.parametrize("name", OURS)
PAIR = {"rows": st.integers(2, 8), "width": st.integers(1, 6), "seed": st.integers(0, 10_000)}
few = settings(max_examples=40, deadline=None)


def unit(rows: Tensor) -> Tensor:
    return F.normalize(rows, dim=1)


def pair(rows: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two float64 views of the same images: alike, not equal."""
    generator = torch.Generator().manual_seed(seed)
    common, own_a, own_b = torch.randn(3, rows, width, generator=generator, dtype=torch.float64)
    return common + 0.5 * own_a, common + 0.5 * own_b


def value_and_gradients(loss: Loss, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    value = loss(a, b)
    return value, *torch.autograd.grad(value, (a, b))


@pytest.mark.parametrize("name", LIGHTLY)
@given(**PAIR)
@few
def test_value_and_gradients_are_those_of_lightly(name: str, rows: int, width: int, seed: int) -> None:
    views = pair(rows, width, seed)
    found = value_and_gradients(OURS[name], *views)
    expected = value_and_gradients(LIGHTLY[name], *views)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def slow_contrast(a: Tensor, b: Tensor, temperature: float, same_view: bool) -> float:
    """Each row of ``a`` picks its own among all of ``b``, and others of ``a`` if ``same_view``."""
    total = 0.0
    for i in range(len(a)):
        others = sum(exp(float(a[i] @ row) / temperature) for row in b)
        if same_view:
            others += sum(exp(float(a[i] @ a[j]) / temperature) for j in range(len(a)) if j != i)
        total -= log(exp(float(a[i] @ b[i]) / temperature) / others)
    return total / len(a)


@given(**PAIR, temperature=st.floats(0.05, 2))
@few
def test_contrasts_agree_with_the_double_loop(rows: int, width: int, seed: int, temperature: float) -> None:
    a, b = map(unit, pair(rows, width, seed))
    expected = slow_contrast(a, b, temperature, same_view=False)
    assert info_nce(a, b, temperature).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    both = [slow_contrast(*views, temperature, same_view=True) for views in ((a, b), (b, a))]
    assert nt_xent(a, b, temperature).item() == pytest.approx(sum(both) / 2, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("loss", [nt_xent, info_nce])
def test_a_tiny_temperature_does_not_overflow(loss: Callable[..., Tensor]) -> None:
    a = unit(torch.randn(8, 4))
    assert loss(a, a, 1e-3).item() == pytest.approx(0, abs=1e-4)


def test_nt_xent_of_views_of_different_shapes_is_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        nt_xent(torch.ones(3, 2), torch.ones(4, 2), 0.5)


@each
@given(**PAIR, data=st.data())
@few
def test_the_order_of_the_images_does_not_matter(
    name: str, rows: int, width: int, seed: int, data: st.DataObject
) -> None:
    a, b = pair(rows, width, seed)
    order = data.draw(st.permutations(range(rows)))
    torch.testing.assert_close(OURS[name](a[order], b[order]), OURS[name](a, b))


@pytest.mark.parametrize("name", sorted(OURS.keys() - {"info-nce"}))  # which the objective itself symmetrises
@given(**PAIR)
@few
def test_the_views_are_alike(name: str, rows: int, width: int, seed: int) -> None:
    a, b = pair(rows, width, seed)
    torch.testing.assert_close(OURS[name](b, a), OURS[name](a, b))


@each
@given(**PAIR, data=st.data())
@few
def test_no_images_match_better_than_each_with_itself(
    name: str, rows: int, width: int, seed: int, data: st.DataObject
) -> None:
    a, _ = pair(rows, width, seed)
    order = data.draw(st.permutations(range(rows)))
    # Redundancy may well be lower between rows that do not belong together.
    loss = (lambda a, b: barlow_twins(a, b, 0)) if name == "barlow-twins" else OURS[name]
    assert loss(a, a).item() <= loss(a, a[order]).item() + 1e-9


def spread(width: int) -> Tensor:
    """Rows ``(2E, E)``: both directions of each axis, length √E; uncorrelated dimensions of variance > 1."""
    axes = torch.eye(width, dtype=torch.float64)
    return width**0.5 * torch.cat([axes, -axes])


@given(width=st.integers(2, 8))
@few
def test_uncorrelated_dimensions_that_agree_cost_nothing(width: int) -> None:
    rows = spread(width)
    assert OURS["barlow-twins"](rows, rows).item() == pytest.approx(0, abs=1e-8)
    assert OURS["vicreg"](rows, rows).item() == pytest.approx(0, abs=1e-12)
    assert OURS["cosine"](rows, rows).item() == pytest.approx(-1)


@given(**PAIR)
@few
def test_no_loss_falls_below_its_minimum(rows: int, width: int, seed: int) -> None:
    views = pair(rows, width, seed)
    for name, loss in OURS.items():
        assert loss(*views).item() >= (-1 if name == "cosine" else 0), name


@given(**PAIR, data=st.data())
@few
def test_barlow_twins_sees_neither_scale_nor_offset_of_a_dimension(
    rows: int, width: int, seed: int, data: st.DataObject
) -> None:
    def each_dimension(low: float, high: float) -> Tensor:
        values = data.draw(st.lists(st.floats(low, high), min_size=width, max_size=width))
        return torch.tensor(values, dtype=torch.float64)

    a, b = pair(rows, width, seed)
    a, b = a / a.std(dim=0), b / b.std(dim=0)
    moved = a * each_dimension(0.3, 30) + each_dimension(-9, 9)
    torch.testing.assert_close(
        OURS["barlow-twins"](moved, b), OURS["barlow-twins"](a, b), rtol=1e-3, atol=1e-3
    )


@given(**PAIR)
@few
def test_vicreg_sees_a_common_scale_but_no_common_offset(rows: int, width: int, seed: int) -> None:
    a, b = pair(rows, width, seed)
    torch.testing.assert_close(OURS["vicreg"](a + 3, b + 3), OURS["vicreg"](a, b))
    assert not torch.allclose(OURS["vicreg"](2 * a, 2 * b), OURS["vicreg"](a, b))


@pytest.mark.parametrize("name", ["barlow-twins", "vicreg"])
def test_dimensions_that_died_have_a_finite_gradient(name: str) -> None:
    for number in value_and_gradients(OURS[name], torch.ones(5, 3), torch.ones(5, 3)):
        assert bool(torch.isfinite(number).all())


def test_moco_v3_scales_the_contrast_by_twice_the_temperature(build: Callable[..., MoCoV3]) -> None:
    a, b = map(unit, pair(6, 4, seed=0))
    expected = 2 * 0.5 * slow_contrast(a, b, 0.5, same_view=False)
    assert build(MoCoV3, temperature=0.5).loss(a, b).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kind", "weights", "expected"),
    [
        (BarlowTwins, {"redundancy": 0.3}, BarlowTwinsLoss(lambda_param=0.3)),
        (VICReg, {"invariance": 3, "variance": 7, "covariance": 2}, VICRegLoss(3, 7, 2)),
    ],
)
def test_projections_are_compared_as_they_are_with_the_weights_given(
    build: Callable[..., Objective],
    views: Callable[..., tuple[Tensor, Tensor]],
    kind: type[Objective],
    weights: dict[str, float],
    expected: Loss,
) -> None:
    objective, (a, b) = build(kind, **weights).eval(), views()
    projections = [objective.projector(objective.backbone(view)) for view in (a, b)]
    torch.testing.assert_close(objective(a, b).loss, expected(*projections))
