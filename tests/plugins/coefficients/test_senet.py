from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.clustering.affinity import symmetrized
from ebsc_core.clustering.coefficients import self_expressive_coefficients
from ebsc_core.clustering.metrics import own_share
from ebsc_core.clustering.refine import refine
from ebsc_core.config.schema import RefineOptions
from ebsc_core.plugins.interfaces import Coefficients
from ebsc_core.utils.progress import Progress
from ebsc_plugins.coefficients import senet
from ebsc_plugins.coefficients.senet import SENet, SENetOptions


def unit_rows(n: int, width: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, width, generator=generator, dtype=torch.float64), dim=1)


def network(width: int = 6, threshold: float = 0.3, seed: int = 0) -> SENet:
    """A small network in float64 whose biases and threshold are off their starting points."""
    torch.manual_seed(seed)
    model = SENet(SENetOptions(hidden=8, layers=2, width=5), width).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        model.threshold.fill_(threshold)
    return model


def vectors(network: torch.nn.Sequential, rows: np.ndarray) -> np.ndarray:
    """What the query or key network gives, written out."""
    linear = [module for module in network if isinstance(module, torch.nn.Linear)]
    for layer in linear:
        rows = rows @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        rows = np.tanh(rows) if layer is linear[-1] else np.maximum(rows, 0)
    return rows


def slow_coefficients(model: SENet, queries: Tensor, dictionary: Tensor, own: Tensor) -> np.ndarray:
    """One number after the other, as the paper says."""
    u, v = vectors(model.query, queries.numpy()), vectors(model.key, dictionary.numpy())
    b = float(model.threshold.detach())
    expected = np.zeros((len(u), len(v)))
    for i in range(len(u)):
        for j in range(len(v)):
            product = float(u[i] @ v[j])
            if j != int(own[i]):
                expected[i, j] = math.copysign(max(abs(product) - b, 0), product) / v.shape[1]
    return expected


def dense(coefficients: Coefficients, n: int) -> Tensor:
    zeros = torch.zeros(len(coefficients.indices), n, dtype=coefficients.values.dtype)
    return zeros.scatter(1, coefficients.indices, coefficients.values)


cases = given(
    n=st.integers(2, 20),
    seed=st.integers(0, 10_000),
    threshold=st.sampled_from([-0.2, 0.0, 0.3, 1.0, 9.0]),
)


@cases
@settings(max_examples=30, deadline=None)
def test_expressing_and_its_loss_are_the_papers_formulas(n: int, seed: int, threshold: float) -> None:
    model, rows = network(threshold=threshold, seed=seed), unit_rows(n, seed=seed)
    own = torch.arange(n)
    own[0] = -1  # the first query counts as one from outside
    expected = slow_coefficients(model, rows, rows, own)
    expression = model.express(rows, rows, own)
    np.testing.assert_allclose(expression.reconstruction.detach(), expected @ rows.numpy(), atol=1e-12)
    penalty = (0.9 * abs(expected) + 0.05 * expected**2).sum() / n
    assert expression.penalty.item() == pytest.approx(penalty, abs=1e-12)
    error = ((rows.numpy() - expected @ rows.numpy()) ** 2).sum() / n
    assert model.loss(rows, expression).item() == pytest.approx(100 * error + penalty)


@cases
@settings(max_examples=30, deadline=None)
def test_kept_coefficients_are_the_largest_of_all(n: int, seed: int, threshold: float) -> None:
    model, rows = network(threshold=threshold, seed=seed), unit_rows(n, seed=seed)
    expected = slow_coefficients(model, rows, rows, torch.arange(n))
    for top_k in {1, n // 2, n - 1} - {0}:
        kept = self_expressive_coefficients(model, rows, top_k)
        assert bool((kept.indices != torch.arange(n)[:, None]).all())
        assert all(len(set(row)) == top_k for row in kept.indices.tolist())
        own_values = np.take_along_axis(expected, kept.indices.numpy(), axis=1)
        np.testing.assert_allclose(kept.values, own_values, rtol=1e-5, atol=1e-8)
        largest = -np.sort(-abs(expected), axis=1)[:, :top_k]
        np.testing.assert_allclose(kept.values.abs(), largest, rtol=1e-5, atol=1e-8)


@given(n=st.integers(2, 25), block=st.integers(1, 30), keys=st.integers(1, 30), seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_the_block_sizes_change_nothing(n: int, block: int, keys: int, seed: int) -> None:
    model, rows = network(seed=seed), unit_rows(n, seed=seed)
    whole = self_expressive_coefficients(model, rows, min(4, n - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(senet, "KEY_BLOCK", keys)
        split = self_expressive_coefficients(model, rows, min(4, n - 1), block)
    torch.testing.assert_close(dense(split, n), dense(whole, n))


def test_a_query_outside_the_dictionary_may_use_every_row() -> None:
    model, rows, query = network(), unit_rows(8), unit_rows(1, seed=9)
    found = model.coefficients(query, model.encode(rows), 8, torch.tensor([-1]))
    expected = slow_coefficients(model, query, rows, torch.tensor([-1]))
    assert sorted(found.indices[0].tolist()) == list(range(8))
    np.testing.assert_allclose(dense(found, 8).detach(), expected, atol=1e-12)


def test_a_duplicate_is_used_though_the_row_itself_is_not() -> None:
    model, rows = network(), unit_rows(6)
    rows[4] = rows[1]
    found = self_expressive_coefficients(model, rows, 5)
    assert 4 in found.indices[1]
    assert 1 not in found.indices[1]


def test_own_is_not_used_even_where_every_product_is_zero() -> None:
    model, rows = network(), unit_rows(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    found = self_expressive_coefficients(model, rows, 6)
    assert bool((found.indices != torch.arange(7)[:, None]).all())
    assert bool((found.values == 0).all())


def test_the_published_network() -> None:
    torch.manual_seed(0)
    model = SENet(SENetOptions(), 500)
    for part in (model.query, model.key):
        linear = [module for module in part if isinstance(module, torch.nn.Linear)]
        assert [layer.out_features for layer in linear] == [1024] * 4
        assert all(bool((layer.bias == 0).all()) for layer in linear)
        # Uniform up to √(6 / inputs) (Kaiming) and √(6 / (inputs + outputs)) (Xavier).
        bounds = [math.sqrt(6 / 500), *[math.sqrt(6 / 1024)] * 2, math.sqrt(6 / 2048)]
        assert [layer.weight.abs().max().item() for layer in linear] == pytest.approx(bounds, rel=1e-3)
    assert model.threshold.item() == 0


def test_gradients_agree_with_finite_differences(gradients_agree: Callable[..., bool]) -> None:
    assert gradients_agree(network(width=3, threshold=0.05), unit_rows(4, 3), unit_rows(5, 3, seed=1))


def test_gradients_reach_every_parameter_from_the_start() -> None:
    torch.manual_seed(0)
    model, rows = SENet(SENetOptions(hidden=8, width=5), 6).double(), unit_rows(12)
    model.loss(rows, model.express(rows, rows, torch.arange(12))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_the_published_schedule_fills_the_refinement() -> None:
    options = RefineOptions(**network().refinement())
    assert (options.steps, options.rows, options.queries) == (100_000, 10_000, 100)
    assert (options.lr, options.weight_decay, options.clip) == (1e-3, 0.0, 1e-3)


@pytest.mark.parametrize("wrong", [{"lmbd": 1.1}, {"lmbd": -0.1}, {"gamma": 0}, {"layers": 0}])
def test_options_outside_their_range_are_refused(wrong: dict[str, float | str]) -> None:
    with pytest.raises(ValidationError):
        SENetOptions(**wrong)  # type: ignore[arg-type]


def test_training_finds_subspaces(subspaces: Callable[..., tuple[Tensor, Tensor]]) -> None:
    rows, truth = subspaces(5, 15, 3)
    own = torch.arange(200)
    model = SENet(SENetOptions(hidden=128, layers=2, width=128), 15)

    @torch.no_grad()
    def loss_and_weight_within() -> tuple[float, float]:
        graph = symmetrized(self_expressive_coefficients(model, rows, 199))
        loss = model.loss(rows, model.express(rows, rows, own)).item()
        return loss, float(own_share(graph, truth.numpy()).mean())

    loss_before, within_before = loss_and_weight_within()
    options = RefineOptions(**model.refinement() | {"steps": 300, "lr": 3e-3})
    refine(model, rows, options, 0, Progress())
    loss_after, within_after = loss_and_weight_within()
    assert loss_after < 0.05 * loss_before
    assert within_before < 0.3  # a fifth would be chance
    assert within_after > 0.65
    assert model.threshold.item() > 0
