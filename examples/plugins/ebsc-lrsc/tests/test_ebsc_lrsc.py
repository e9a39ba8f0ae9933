"""What ebsc asks of every coefficient model, and what the papers promise of this one."""

import torch
from ebsc_lrsc.coefficients import LowRank, LowRankOptions
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.testing import coefficient_model_checks

test_contract = coefficient_model_checks("lrsc")


def two_planes(n: int = 40) -> Tensor:
    """Unit-length rows ``(2n, 8)``, those of each half in a plane of its own."""
    generator = torch.Generator().manual_seed(0)
    bases = torch.linalg.qr(torch.randn(2, 8, 2, generator=generator)).Q
    rows = torch.randn(2, n, 2, generator=generator) @ bases.mT
    return F.normalize(rows.flatten(0, 1), dim=1)


def test_it_is_the_minimum() -> None:
    """No small change of the closed form lowers the objective it is to minimise."""
    rows, tau = two_planes(10).double(), 3.0
    whole = rows @ LowRank(LowRankOptions(tau=tau), 8).encode(rows).T

    def objective(c: Tensor) -> float:
        error = (rows - c @ rows).square().sum()
        return float(torch.linalg.matrix_norm(c, "nuc") + tau / 2 * error)

    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        change = torch.randn(whole.shape, generator=generator, dtype=torch.float64)
        assert objective(whole + 1e-3 * change) > objective(whole)


def test_rows_express_their_own_subspace() -> None:
    """Subspaces that share no direction are kept apart, as the shape interaction matrix does."""
    rows = two_planes()
    model = LowRank(LowRankOptions(tau=1000.0), 8)
    found = model.coefficients(rows, model.encode(rows), 10, torch.arange(80))
    assert torch.equal(found.indices // 40, (torch.arange(80) // 40)[:, None].expand(80, 10))
