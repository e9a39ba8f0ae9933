from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial.chebyshev import Chebyshev
from scipy import sparse

from ebsc_core.clustering.spectral.chebyshev import Block, filtered, growth, rayleigh_ritz, to_torch

CPU = torch.device("cpu")


def operator(n: int, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """A symmetric operator with spectrum in [-1, 1], sparse and dense."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
    dense = (basis * rng.uniform(-1, 1, n)) @ basis.T
    return to_torch(sparse.csr_matrix(dense.astype(np.float32)), CPU), dense


@given(seed=st.integers(0, 1000), m=st.integers(1, 8), stretch=st.floats(0, 6))
@settings(deadline=None)
def test_ritz_vectors_are_orthonormal_and_diagonalise(seed: int, m: int, stretch: float) -> None:
    """Of a well conditioned basis, which Cholesky takes, and of one hardly independent, which it does not."""
    product, dense = operator(40, seed)
    rng = np.random.default_rng(seed)
    mixing = np.linalg.qr(rng.normal(size=(m, m)))[0] * np.logspace(0, -stretch, m)
    basis = rng.normal(size=(40, m)) @ mixing
    block = rayleigh_ritz(product, torch.from_numpy(basis.astype(np.float32)))
    vectors = block.vectors.double().numpy()
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(m), atol=2e-5)
    np.testing.assert_allclose(vectors.T @ dense @ vectors, np.diag(block.values), atol=2e-5)
    np.testing.assert_allclose(block.image.numpy(), dense @ vectors, atol=2e-5)
    assert (np.diff(block.values) <= 1e-12).all()


def test_a_basis_with_a_column_of_zeros_or_a_copy_is_completed() -> None:
    product, _ = operator(30)
    basis = torch.randn(30, 4)
    basis[:, 1], basis[:, 3] = 0, basis[:, 2]
    block = rayleigh_ritz(product, basis)
    torch.testing.assert_close(block.vectors.T @ block.vectors, torch.eye(4), atol=1e-5, rtol=0)


@pytest.mark.parametrize("degree", [1, 2, 5, 12])
@pytest.mark.parametrize("cut", [0.0, 0.4, 0.9])
def test_the_filter_is_the_chebyshev_polynomial_up_to_a_factor(degree: int, cut: float) -> None:
    product, dense = operator(30)
    start = torch.randn(30, 3)
    block = Block(start.clone(), product @ start, np.zeros(3))
    values, vectors = np.linalg.eigh(dense)
    polynomial = Chebyshev.basis(degree, domain=[-1, cut])
    expected = (vectors * (polynomial(values) / polynomial(1.0))) @ vectors.T @ start.double().numpy()
    np.testing.assert_allclose(filtered(product, block, cut, degree).numpy(), expected, atol=1e-5)


def test_growth_is_that_of_the_polynomial() -> None:
    for value in (0.7, 0.95, 1.0):
        later = [float(Chebyshev.basis(degree, domain=[-1, 0.6])(value)) for degree in (30, 31)]
        assert growth(np.array([value]), 0.6)[0] == pytest.approx(np.log(later[1] / later[0]), rel=1e-3)
    assert growth(np.array([0.6, 0.2]), 0.6) == pytest.approx([0, 0], abs=1e-6)
