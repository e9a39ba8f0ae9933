from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import linear_model
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.clustering.coefficients import self_expressive_coefficients
from ebsc_core.plugins.interfaces import Coefficients
from ebsc_plugins.coefficients import elastic_net
from ebsc_plugins.coefficients.elastic_net import ElasticNet, ElasticNetOptions

Weighting = dict[str, float]
weightings = st.fixed_dictionaries(
    {"gamma": st.floats(1.5, 300), "tau": st.one_of(st.floats(0.1, 1), st.just(1.0))}
)
chosen = {"seed": st.integers(0, 10_000), "support_size": st.integers(1, 30), "weighting": weightings}


def unit_rows(n: int, width: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, width, generator=generator, dtype=torch.float64), dim=1)


def dense(found: Coefficients, n: int) -> Tensor:
    zeros = torch.zeros(len(found.indices), n, dtype=torch.float64)
    return zeros.scatter_add(1, found.indices, found.values.double())


def solve(rows: Tensor, top_k: int | None = None, **given: float) -> Tensor:
    model = ElasticNet(ElasticNetOptions(**given), rows.shape[1])
    found = self_expressive_coefficients(model, rows, top_k or len(rows) - 1)
    assert model.unfinished == 0
    assert model.warnings_ == []
    return dense(found, len(rows))


def weights(rows: Tensor, gamma: float, tau: float) -> Tensor:
    """γ' of each row, ``(N, 1)``, by its definition."""
    inner = (rows @ rows.T).double().fill_diagonal_(0)
    return gamma * tau / inner.abs().amax(dim=1, keepdim=True)


def objective(rows: Tensor, found: Tensor, gamma: float, tau: float) -> Tensor:
    """``(N,)``, what is minimised."""
    error = (rows.double() - found @ rows.double()).square().sum(dim=1)
    penalty = tau * found.abs().sum(dim=1) + (1 - tau) / 2 * found.square().sum(dim=1)
    return penalty + weights(rows, gamma, tau).squeeze(1) / 2 * error


def violation(rows: Tensor, found: Tensor, gamma: float, tau: float) -> Tensor:
    """``(N, N)``, by how much the optimality conditions are missed, in units of τ."""
    rows = rows.double()
    pull = weights(rows, gamma, tau) * ((rows - found @ rows) @ rows.T)
    used = (pull - tau * found.sign() - (1 - tau) * found).abs()
    unused = (pull.abs() - tau).clamp_min(0).fill_diagonal_(0)
    return torch.where(found != 0, used, unused) / tau


@given(n=st.integers(3, 60), width=st.integers(2, 12), **chosen)
@example(n=3, width=2, seed=2, support_size=1, weighting={"gamma": 258.0, "tau": 1.0})  # values of 33
@settings(max_examples=60, deadline=None)
def test_the_solution_is_optimal(
    n: int, width: int, seed: int, support_size: int, weighting: Weighting
) -> None:
    rows = unit_rows(n, width, seed)
    found = solve(rows, support_size=support_size, **weighting)
    # Values come back in float32, however large, which γ' then multiplies.
    rounding = 5e-6 * weighting["gamma"] * (1 + found.abs().sum(dim=1, keepdim=True))
    assert bool((violation(rows, found, **weighting) < rounding).all())
    assert bool((found.diagonal() == 0).all())


@given(n=st.integers(3, 25), width=st.integers(2, 10), **chosen)
@settings(max_examples=25, deadline=None)
def test_it_does_no_worse_than_scikit_learn(
    n: int, width: int, seed: int, support_size: int, weighting: Weighting
) -> None:
    rows = unit_rows(n, width, seed)
    found = solve(rows, support_size=support_size, **weighting)
    expected = torch.zeros(n, n, dtype=torch.float64)
    for i, weight in enumerate(weights(rows, **weighting).squeeze(1).tolist()):
        others = [j for j in range(n) if j != i]
        # Theirs is divided by γ' and by the number of equations.
        rival = linear_model.ElasticNet(
            alpha=1 / (weight * width),
            l1_ratio=weighting["tau"],
            fit_intercept=False,
            tol=1e-10,
            max_iter=1_000_000,
        )
        rival.fit(rows[others].T.numpy(), rows[i].numpy())
        expected[i, others] = torch.from_numpy(rival.coef_)
    ours, theirs = (objective(rows, c, **weighting) for c in (found, expected))
    assert bool((ours <= theirs * (1 + 1e-6)).all())  # theirs may take more than a million rounds
    if weighting["tau"] < 0.9:  # where the solution is unique and well determined
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("tau", [0.9, pytest.param(1.0, marks=pytest.mark.slow)])
def test_float32_comes_within_its_rounding(tau: float) -> None:
    rows = unit_rows(400, 30).float()
    found = solve(rows, 80, gamma=200, tau=tau)
    best = objective(rows, solve(rows.double(), 80, gamma=200, tau=tau), 200, tau)
    torch.testing.assert_close(objective(rows, found, 200, tau), best, rtol=2e-5, atol=0)


def test_many_rows_take_the_quick_choice_of_candidates() -> None:
    rows = unit_rows(4000, 40)
    model = ElasticNet(ElasticNetOptions(gamma=50), 40)
    own = torch.arange(100)
    found = dense(model.coefficients(rows[:100], model.encode(rows), 60, own), 4000)
    everything = torch.zeros(4000, 4000, dtype=torch.float64)
    everything[:100] = found
    assert float(violation(rows, everything, 50, 0.9)[:100].max()) < 1e-4
    assert model.unfinished == 0


def test_small_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = unit_rows(120, 20)
    expected = solve(rows, gamma=100)
    for name in ("POOLED", "TOGETHER", "MAX_SCORES", "MAX_GATHERED", "MAX_SOLVED"):
        monkeypatch.setattr(elastic_net, name, {"POOLED": 21, "TOGETHER": 7}.get(name, 5000))
    torch.testing.assert_close(solve(rows, gamma=100), expected, rtol=1e-4, atol=1e-6)


@given(st.permutations(range(30)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_the_rows_changes_nothing(order: list[int]) -> None:
    rows = unit_rows(30)
    torch.testing.assert_close(solve(rows[order]), solve(rows)[order][:, order], rtol=1e-4, atol=1e-6)


@given(seed=st.integers(0, 1000), tau=st.sampled_from([0.5, 0.95, 1.0]))
@settings(max_examples=25, deadline=None)
def test_duplicates_in_the_dictionary_do_no_harm(seed: int, tau: float) -> None:
    rows = unit_rows(15, 8, seed)
    rows = torch.cat([rows, rows[:5], -rows[:5], rows[:2]])
    found = solve(rows, gamma=40, tau=tau)
    assert float(violation(rows, found, 40, tau).max()) < 1e-3
    assert bool((found.diagonal() == 0).all())


def test_a_query_from_outside_may_use_every_row() -> None:
    rows = unit_rows(40)
    model = ElasticNet(ElasticNetOptions(gamma=20), 6)
    others = rows[1:]
    outside = dense(model.coefficients(rows[:1], model.encode(others), 39, torch.tensor([-1])), 39)
    inside = dense(model.coefficients(rows[:1], model.encode(rows), 39, torch.tensor([0])), 40)
    torch.testing.assert_close(outside, inside[:, 1:], rtol=1e-4, atol=1e-6)
    mixed = model.coefficients(rows[[0, 0]], model.encode(rows), 40, torch.tensor([0, -1]))
    torch.testing.assert_close(dense(mixed, 40)[:1], inside, rtol=1e-4, atol=1e-6)
    # Expressed by itself: of the others, none.
    assert dense(mixed, 40)[1].nonzero().tolist() == [[0]]


def test_the_largest_coefficients_are_kept() -> None:
    rows = unit_rows(60, 20)
    model = ElasticNet(ElasticNetOptions(gamma=200), 20)
    whole = dense(self_expressive_coefficients(model, rows, 59), 60)
    kept = self_expressive_coefficients(model, rows, 3)
    expected = whole.abs().topk(3, dim=1)
    assert torch.equal(kept.indices.sort().values, expected.indices.sort().values)


@pytest.mark.parametrize("top_k", [1, 7, 19])
def test_there_are_as_many_entries_as_asked_for(top_k: int) -> None:
    rows = unit_rows(20)
    for size in (1, 5, 100):
        model = ElasticNet(ElasticNetOptions(support_size=size), 6)
        found = self_expressive_coefficients(model, rows, top_k)
        assert found.indices.shape == found.values.shape == (20, top_k)
        for i, positions in enumerate(found.indices.tolist()):
            assert len({i, *positions}) == top_k + 1


def test_gamma_is_relative_to_the_zero_solution() -> None:
    """Just above 1 only the nearest row is used, by next to nothing; orthogonal rows use nothing."""
    rows = unit_rows(30)
    found = solve(rows, gamma=1.001)
    nearest = (rows @ rows.T).fill_diagonal_(0).abs().argmax(dim=1)
    assert torch.equal(found.abs().argmax(dim=1), nearest)
    assert 0 < float(found.abs().sum(dim=1).max()) < 0.01
    assert bool((solve(torch.eye(8)) == 0).all())


def test_rows_that_run_out_of_rounds_are_counted() -> None:
    rows = unit_rows(300, 30)
    model = ElasticNet(ElasticNetOptions(gamma=200, max_rounds=5, support_size=4), 30)
    found = dense(self_expressive_coefficients(model, rows, 15), 300)
    assert 0 < model.unfinished <= 300
    assert model.warnings_ == [
        f"elastic-net: {model.unfinished} rows are not solved to the end after 5 rounds; raise "
        "coefficients.max_rounds"
    ]
    best = objective(rows, solve(rows, 80, gamma=200), 200, 0.9)
    reached = objective(rows, found, 200, 0.9)
    nothing = objective(rows, torch.zeros_like(found), 200, 0.9)
    assert bool((reached > best - 1e-6).all())
    assert bool((reached - best < 0.2 * (nothing - best)).all())
    model.encode(rows)
    assert model.unfinished == 0


@pytest.mark.parametrize("tau", [0.9, 1.0])
def test_rows_are_expressed_by_their_own_subspace(
    subspaces: Callable[..., tuple[Tensor, Tensor]], tau: float
) -> None:
    rows, truth = subspaces(5, 30, 4)
    found = solve(rows, gamma=50, tau=tau).abs()
    within = (found * (truth[:, None] == truth)).sum(dim=1) / found.sum(dim=1)
    assert float(within.min()) > 0.99
    assert np.count_nonzero(found[0]) < 40
