from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from ebsc_core.training.sync_batch_norm import SyncedBatchNorm, sync_norms
from ebsc_core.utils.distributed import DistributedContext
from ebsc_core.utils.errors import PartError


@dataclass(frozen=True)
class Beside(DistributedContext):
    """The first of two processes, the other's rows being known."""

    other: Tensor | None = None

    def gather(self, rows: Tensor) -> Tensor:
        assert self.other is not None
        dims = [0, *range(2, self.other.ndim)]
        theirs = torch.stack(torch.var_mean(self.other.float(), dims, correction=0))
        return torch.cat([rows, theirs[None]])


def converted(norm: nn.Module, distributed: DistributedContext) -> nn.Sequential:
    module = nn.Sequential(norm)
    sync_norms(module, distributed)
    return module


@given(
    n=st.integers(2, 6),
    shape=st.sampled_from([(3,), (3, 5), (3, 4, 2)]),
    offset=st.floats(-30, 30),
    momentum=st.sampled_from([0.1, 0.7, None]),
    affine=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_a_share_is_normalized_as_in_the_whole_batch(n, shape, offset, momentum, affine, dtype):
    rows = (torch.randn(2 * n, *shape, generator=torch.Generator().manual_seed(n)) + offset).to(dtype)
    kind = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
    norm, reference = (kind(3, momentum=momentum, affine=affine) for _ in range(2))
    if affine:
        with torch.no_grad():
            for one in (norm, reference):
                one.weight.copy_(torch.tensor([0.5, -1.0, 2.0]))
                one.bias.copy_(torch.tensor([0.1, 0.2, -3.0]))
    module = converted(norm, Beside(0, 2, other=rows[n:]))
    for _ in range(2):
        found, expected = module(rows[:n]), reference(rows)[:n]
    assert found.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    for name, buffer in reference.named_buffers():
        torch.testing.assert_close(dict(norm.named_buffers())[name], buffer, rtol=1e-4, atol=1e-5)


def test_in_evaluation_each_process_normalizes_alone():
    rows = torch.randn(6, 3)
    norm = nn.BatchNorm1d(3).eval()
    before = norm(rows)
    assert torch.equal(converted(norm, DistributedContext(0, 2)).eval()(rows), before)


def test_an_activation_within_stays():
    rows = torch.randn(4, 3, 2, 2)
    norm, reference = BatchNormAct2d(3, act_layer=nn.SiLU), BatchNormAct2d(3, act_layer=nn.SiLU)
    found = converted(norm, Beside(0, 2, other=rows[2:]))(rows[:2])
    torch.testing.assert_close(found, reference(rows)[:2], rtol=1e-4, atol=1e-5)


def test_weights_buffers_and_names_stay():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Sequential(BatchNormAct2d(3)))
    before = dict(module.state_dict(keep_vars=True))
    sync_norms(module, DistributedContext(0, 2))
    assert isinstance(module[1], SyncedBatchNorm)
    after = module.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_a_batch_norm_of_unknown_steps_is_refused():
    class Own(nn.BatchNorm1d):
        pass

    with pytest.raises(PartError, match=r"0 is a Own.*run in one"):
        converted(Own(3), DistributedContext(0, 2))
