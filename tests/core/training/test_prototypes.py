from __future__ import annotations

from math import exp, log

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.training.prototypes import prototype_scattering


def rows(n: int, seed: int, width: int = 5) -> Tensor:
    return F.normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def slow(a: Tensor, b: Tensor, clusters: Tensor, temperature: float) -> float:
    """Equation 5 cluster by cluster, both orders of the views averaged."""
    names = sorted({int(name) for name in clusters if name >= 0})
    if len(names) < 2:
        return 0.0

    def one(first: Tensor, second: Tensor) -> float:
        mine, theirs = (
            [F.normalize(view[clusters == name].mean(dim=0), dim=0) for name in names]
            for view in (first, second)
        )
        total = 0.0
        for k in range(len(names)):
            alike = exp(float(mine[k] @ theirs[k]) / temperature)
            others = sum(
                exp(float(mine[k] @ mine[other]) / temperature) for other in range(len(names)) if other != k
            )
            total -= log(alike / others)
        return total / len(names)

    return (one(a, b) + one(b, a)) / 2


@given(st.integers(0, 1000), st.integers(2, 40), st.integers(1, 7), st.floats(0.1, 2))
def test_it_is_equation_5(seed: int, n: int, n_clusters: int, temperature: float) -> None:
    a, b = rows(n, seed), rows(n, seed + 1)
    clusters = torch.randint(-1, n_clusters, (n,), generator=torch.Generator().manual_seed(seed))
    found = prototype_scattering(a, b, clusters, n_clusters, temperature)
    assert abs(float(found) - slow(a, b, clusters, temperature)) < 1e-4


def test_it_falls_as_clusters_part() -> None:
    """Two clusters on the same side of the circle lose more than two on opposite sides."""
    clusters = torch.tensor([0, 0, 1, 1])
    near = F.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.2], [1.0, -0.1], [1.0, -0.2]]), dim=1)
    far = F.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.2], [-1.0, -0.1], [-1.0, -0.2]]), dim=1)
    assert prototype_scattering(far, far, clusters, 2) < prototype_scattering(near, near, clusters, 2) - 3


def test_one_cluster_in_the_batch_gives_no_loss_and_a_finite_gradient() -> None:
    a = rows(6, 0).requires_grad_()
    loss = prototype_scattering(a, rows(6, 1), torch.zeros(6, dtype=torch.int64), 3)
    loss.backward()
    assert float(loss.detach()) == 0
    assert a.grad is not None
    assert bool((a.grad == 0).all())


def test_missing_clusters_leave_finite_gradients() -> None:
    a = rows(6, 0).requires_grad_()
    prototype_scattering(a, rows(6, 1), torch.tensor([0, 0, 2, 2, -1, 2]), 5).backward()
    assert a.grad is not None
    assert bool(torch.isfinite(a.grad).all())
    assert bool((a.grad[4] == 0).all()), "an image of no cluster pushes nothing"
