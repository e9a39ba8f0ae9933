from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.clustering.affinity import symmetrized
from ebsc_core.clustering.coefficients import self_expressive_coefficients
from ebsc_core.clustering.metrics import own_share
from ebsc_core.clustering.refine import refine
from ebsc_core.config.schema import RefineOptions
from ebsc_core.plugins.interfaces import CoefficientModel, Coefficients
from ebsc_core.utils.progress import Progress
from ebsc_plugins.coefficients.energy import EnergyNetwork, EnergyOptions
from ebsc_plugins.coefficients.knn import CosineNeighbors, KnnOptions


def unit_rows(n: int, width: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, width, generator=generator, dtype=torch.float64), dim=1)


def untrained(width: int = 6, **options: float) -> EnergyNetwork:
    return EnergyNetwork(EnergyOptions(hidden=8, **options), width).double()


def shaken(width: int = 6) -> EnergyNetwork:
    """A network whose every parameter is off its starting point."""
    torch.manual_seed(0)
    model = untrained(width, scale=3.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def dense(coefficients: Coefficients) -> Tensor:
    n = len(coefficients.indices)
    return torch.zeros(n, n).scatter(1, coefficients.indices, coefficients.values)


def all_coefficients(model: CoefficientModel, rows: Tensor) -> Tensor:
    return dense(self_expressive_coefficients(model, rows, len(rows) - 1))


def knn(**options: bool) -> CosineNeighbors:
    return CosineNeighbors(KnnOptions(**options), 6)


@given(n=st.integers(3, 30), seed=st.integers(0, 10_000), data=st.data())
@settings(max_examples=25, deadline=None)
def test_knn_agrees_with_scikit_learn(n: int, seed: int, data: st.DataObject) -> None:
    rows, top_k = unit_rows(n, seed=seed), data.draw(st.integers(1, n - 1))
    neighbors = NearestNeighbors(n_neighbors=top_k, metric="cosine").fit(rows.numpy())
    distances, expected = neighbors.kneighbors()  # without arguments: each row's own left out
    found = self_expressive_coefficients(knn(weighted=True), rows, top_k)
    assert found.indices.tolist() == expected.tolist()
    np.testing.assert_allclose(found.values, (1 - distances).clip(0), atol=1e-6)
    plain = self_expressive_coefficients(knn(), rows, top_k)
    assert plain.indices.tolist() == expected.tolist()
    cosines, nearest = 1 - distances, (1 - distances)[:, :1]
    clear = np.abs(cosines - 0.1 * nearest) > 1e-5  # on neither side of the limit by rounding
    related = (cosines > 0.1 * nearest) | (nearest <= 0)
    np.testing.assert_array_equal(plain.values.numpy()[clear], related[clear])


def test_the_untrained_network_ranks_by_cosine() -> None:
    rows = unit_rows(40)
    ranked = self_expressive_coefficients(untrained(), rows, 39)
    expected = self_expressive_coefficients(knn(), rows, 39)
    assert torch.equal(ranked.indices, expected.indices)


def test_the_untrained_network_is_a_softmax_of_scaled_cosines() -> None:
    rows = unit_rows(10)
    scores = 7 * rows @ rows.T
    scores.fill_diagonal_(-torch.inf)
    expected = torch.zeros(10, 10, dtype=torch.float64)
    for i in range(10):
        weights = [0.0 if j == i else float(scores[i, j].exp()) for j in range(10)]
        expected[i] = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    torch.testing.assert_close(all_coefficients(untrained(scale=7.0), rows), expected.float())


@given(n=st.integers(2, 25), seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_coefficients_sum_to_the_amplitude_and_leave_self_out(n: int, seed: int) -> None:
    model = shaken()
    coefficients = all_coefficients(model, unit_rows(n, seed=seed))
    amplitude = model.log_amplitude.exp().item()
    np.testing.assert_allclose(coefficients.sum(dim=1), amplitude, rtol=1e-5)
    assert bool((coefficients.diagonal() == 0).all())
    assert bool((coefficients >= 0).all())


def test_the_kept_coefficients_are_the_largest_of_all() -> None:
    rows = unit_rows(20)
    kept = self_expressive_coefficients(shaken(), rows, 4)
    expected = all_coefficients(shaken(), rows).topk(4, dim=1)
    assert torch.equal(kept.indices, expected.indices)
    torch.testing.assert_close(kept.values, expected.values)


def test_training_and_application_express_alike() -> None:
    model, rows = shaken(), unit_rows(15)
    coefficients = all_coefficients(model, rows).double()
    expression = model.express(rows, rows, torch.arange(15))
    torch.testing.assert_close(expression.reconstruction, coefficients @ rows, rtol=1e-5, atol=1e-6)
    penalty = 0.5 * model.options.penalty * coefficients.square().sum(dim=1).mean()
    torch.testing.assert_close(expression.penalty, penalty, rtol=1e-5, atol=1e-8)


def test_the_loss_is_its_formula() -> None:
    model, rows = shaken(), unit_rows(12)
    coefficients = all_coefficients(model, rows).double()
    expected = sum(
        0.5 * model.options.gamma * float((rows[i] - coefficients[i] @ rows).square().sum())
        + 0.5 * model.options.penalty * float(coefficients[i].square().sum())
        for i in range(12)
    )
    found = model.loss(rows, model.express(rows, rows, torch.arange(12)))
    assert found.item() == pytest.approx(expected / 12, rel=1e-5)


def test_gradients_agree_with_finite_differences(gradients_agree: Callable[..., bool]) -> None:
    assert gradients_agree(shaken(width=3), unit_rows(4, 3), unit_rows(5, 3, seed=1))


@given(st.permutations(range(9)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_the_rows_changes_nothing(order: list[int]) -> None:
    rows = unit_rows(9)
    for model in (shaken(), knn(weighted=True)):
        whole = all_coefficients(model, rows)
        torch.testing.assert_close(all_coefficients(model, rows[order]), whole[order][:, order])


def test_a_query_outside_the_dictionary_is_expressed_too() -> None:
    model, rows, query = shaken(), unit_rows(8), unit_rows(1, seed=9)
    found = model.coefficients(query, model.encode(rows), 8, torch.tensor([-1]))
    assert sorted(found.indices[0].tolist()) == list(range(8))
    assert found.values.sum().item() == pytest.approx(model.log_amplitude.exp().item())


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_extreme_scales_stay_finite(scale: float) -> None:
    rows = unit_rows(10)
    model = untrained(scale=scale)
    coefficients = all_coefficients(model, rows)
    assert bool(torch.isfinite(coefficients).all())
    np.testing.assert_allclose(coefficients.sum(dim=1), 1, rtol=1e-5)
    assert bool(torch.isfinite(model.express(rows, rows, torch.arange(10)).reconstruction).all())


def test_training_finds_subspaces_that_cosines_miss(subspaces: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """The point of the method: more weight within the subspaces than cosine neighbours give."""
    rows, truth = subspaces(6, 12, 4)

    def within(model: CoefficientModel) -> float:
        graph = symmetrized(self_expressive_coefficients(model, rows, 5))
        return float(own_share(graph, truth.numpy()).mean())

    model = EnergyNetwork(EnergyOptions(hidden=128), 12)
    refine(model, rows, RefineOptions(steps=200, rows=240), 0, Progress())
    best_knn = max(within(knn()), within(knn(weighted=True)))
    assert within(model) > best_knn + 0.05
