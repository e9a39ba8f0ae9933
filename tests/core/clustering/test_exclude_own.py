from __future__ import annotations

import torch

from ebsc_core.clustering.coefficients import exclude_own


def test_own_entries_are_set_and_nothing_else_with_or_without_gradients() -> None:
    raw = torch.randn(3, 4, requires_grad=True)
    scores, own = raw * 2, torch.tensor([2, -1, 0])
    exclude_own(scores, own, 7.0)
    expected = (raw * 2).detach()
    expected[0, 2] = expected[2, 0] = 7.0
    assert torch.equal(scores, expected)
    scores.sum().backward()
    assert raw.grad is not None
    assert torch.equal(raw.grad, torch.where(expected == 7.0, 0.0, 2.0))
