"""Two processes on half a batch each compute what one computes on the whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

OBJECTIVES = ("SimCLR", "BYOL", "MoCoV3", "BarlowTwins", "VICReg", "SimSiam")
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def distance(found: dict[str, Tensor], expected: dict[str, Tensor], prefix: str) -> float:
    """Of all tensors of a case together: length of the difference, relative to that of the expected."""
    names = [name for name in expected if name.startswith(prefix)]
    assert names
    assert names == [name for name in found if name.startswith(prefix)]
    ours, theirs = (torch.cat([one[name].double().flatten() for name in names]) for one in (found, expected))
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_are_those_of_the_whole_batch(computed, objective, dtype):
    for rank in computed.ranks:
        for what in ("gradient", "loss", "features", "embeddings", "buffer"):
            case = f"{objective}.{dtype}.{what}"
            assert distance(rank, computed.alone, case) < TOLERANCE[dtype], what


def test_without_the_gradient_of_gathered_rows_they_are_not(computed):
    assert distance(computed.ranks[0], computed.alone, "detached.float32.features") < 1e-5
    assert distance(computed.ranks[0], computed.alone, "detached.float32.gradient") > 0.05


def test_processes_agree_bit_for_bit(computed):
    one, other = computed.ranks
    for name, value in one.items():
        if "detached" not in name:
            assert torch.equal(value, other[name]), name


def test_means_are_taken_over_processes(computed):
    for rank in computed.ranks:
        assert torch.equal(rank["mean.0"], torch.full((2, 3), 0.5))
        assert torch.equal(rank["mean.1"], torch.tensor(2.0))
