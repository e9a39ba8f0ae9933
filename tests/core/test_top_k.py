"""How many coefficients a row keeps when nobody says."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ebsc_core.coefficients import auto_top_k, intrinsic_dimension


def sphere(n: int, dimension: int, width: int, seed: int = 0) -> torch.Tensor:
    """Unit rows that fill a great sphere of this dimension in a wider space."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(width, dimension + 1, generator=generator)).Q
    return F.normalize(torch.randn(n, dimension + 1, generator=generator), dim=1) @ basis.T


@pytest.mark.parametrize("dimension", [1, 2, 4, 8])
def test_dimension_of_a_sphere_in_a_wider_space(dimension: int) -> None:
    assert intrinsic_dimension(sphere(1000, dimension, 50), 0) == pytest.approx(dimension, rel=0.2)


def test_copies_of_rows_tell_nothing() -> None:
    rows = sphere(3000, 3, 20)
    doubled = torch.cat([rows, rows[:300]])
    assert intrinsic_dimension(doubled, 0) == pytest.approx(intrinsic_dimension(rows, 0), rel=0.15)
    assert intrinsic_dimension(rows[:1].repeat(50, 1), 0) == 1.0


def test_the_sample_is_seeded() -> None:
    rows = sphere(3000, 5, 20)
    assert intrinsic_dimension(rows, 1) == intrinsic_dimension(rows, 1) != intrinsic_dimension(rows, 2)


def test_top_k_is_one_more_than_a_high_dimension() -> None:
    rows = sphere(1000, 14, 50)
    assert auto_top_k(rows, 10, 0) == round(intrinsic_dimension(rows, 0)) + 1 > 8


@pytest.mark.parametrize(("n_clusters", "expected"), [(2, 9), (10, 7), (50, 5)])
def test_top_k_follows_the_cluster_size_where_the_dimension_is_low(n_clusters: int, expected: int) -> None:
    assert auto_top_k(sphere(1000, 2, 50), n_clusters, 0) == expected


def test_a_row_has_no_more_companions_than_its_cluster() -> None:
    rows = sphere(400, 12, 50)
    assert auto_top_k(rows, 80, 0) == 4
    assert auto_top_k(rows, 2, 0) > 8


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_top_k_of_few_rows(n: int) -> None:
    assert auto_top_k(sphere(n, 3, 5), 2, 0) == min(3, n - 1)
