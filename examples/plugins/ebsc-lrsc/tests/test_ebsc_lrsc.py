"""Check the contract of every coefficient model, and the papers' claims about this one."""

import torch
from ebsc_lrsc.coefficients import LowRank, LowRankOptions
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.testing import coefficient_model_checks

test_contract = coefficient_model_checks("lrsc")


def two_planes(n: int = 40) -> Tensor:
    """Draw unit-length rows ``(2n, 8)``; each half lies in its own plane."""
    generator = torch.Generator().manual_seed(0)
    bases = torch.linalg.qr(torch.randn(2, 8, 2, generator=generator)).Q
    rows = torch.randn(2, n, 2, generator=generator) @ bases.mT
    return F.normalize(rows.flatten(0, 1), dim=1)


def test_it_is_the_minimum() -> None:
    """Check that no small change of the closed form lowers the objective."""
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
    """Check that rows use only their own subspace, if subspaces share no direction, as in the theory."""
    rows = two_planes()
    model = LowRank(LowRankOptions(tau=1000.0), 8)
    found = model.coefficients(rows, model.encode(rows), 10, torch.arange(80))
    assert torch.equal(found.indices // 40, (torch.arange(80) // 40)[:, None].expand(80, 10))
