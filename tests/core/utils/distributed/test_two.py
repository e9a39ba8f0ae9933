"""Two processes on half a batch each compute what one computes on the whole.

What float32 gives is held against one process's float64: its own float32 is further from that (3e-6 to 9e-6
relative for gradients here, by the rounding of torch's batch norm) than two processes are (1.5e-6 at most).
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

OBJECTIVES = ("SimCLR", "BYOL", "MoCoV3", "BarlowTwins", "VICReg", "SimSiam")
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def joined(tensors: dict[str, Tensor], prefix: str) -> Tensor:
    found = [tensor.double().flatten() for name, tensor in sorted(tensors.items()) if name.startswith(prefix)]
    assert found
    return torch.cat(found)


def distance(found: dict[str, Tensor], expected: dict[str, Tensor], prefix: str) -> float:
    """Of all tensors of a case together: length of the difference, relative to that of the expected."""
    exact = joined(expected, prefix.replace("float32", "float64"))
    return float((joined(found, prefix) - exact).norm() / exact.norm())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_are_those_of_the_whole_batch(computed, objective, dtype):
    for rank in computed.ranks:
        for what in ("gradient", "loss", "features", "embeddings", "buffer"):
            case = f"{objective}.{dtype}.{what}"
            assert distance(rank, computed.alone, case) < TOLERANCE[dtype], what


def test_without_the_gradient_of_gathered_rows_they_are_not(computed):
    assert distance(computed.ranks[0], computed.alone, "detached.float64.features") < 1e-10
    assert distance(computed.ranks[0], computed.alone, "detached.float64.gradient") > 0.05


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_gradients_of_a_joint_step_are_those_of_the_whole_batch(computed, dtype):
    for rank in computed.ranks:
        for what in ("gradient.objective", "gradient.model", "total", "figures"):
            assert distance(rank, computed.alone, f"joint.{dtype}.{what}") < TOLERANCE[dtype], what


@pytest.mark.parametrize("objective", ["SimCLR", "BYOL"])
def test_training_leads_to_the_same_weights(computed, objective):
    for rank in computed.ranks:
        assert distance(rank, computed.alone, f"trained.{objective}.weight") < 1e-9
        assert distance(rank, computed.alone, f"trained.{objective}.history") < 1e-6


def test_features_of_all_images_come_in_their_order(computed):
    for rank in computed.ranks:
        for what, width in (("features", 16), ("embeddings", 8)):
            name = f"extracted.{what}"
            assert rank[name].shape == (37, width)
            torch.testing.assert_close(rank[name], computed.alone[name], rtol=1e-5, atol=1e-6)


def test_processes_agree_bit_for_bit(computed):
    one, other = computed.ranks
    for name, value in one.items():
        if "detached" not in name:
            assert torch.equal(value, other[name]), name


def test_means_are_taken_over_processes(computed):
    for rank in computed.ranks:
        assert torch.equal(rank["mean.0"], torch.full((2, 3), 0.5))
        assert torch.equal(rank["mean.1"], torch.tensor(2.0))
