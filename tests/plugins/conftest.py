"""Provide the fixtures for tests of several kinds of components."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.plugins.interfaces import TrainableCoefficientModel
from ebsc_core.utils.errors import EbscError


@pytest.fixture
def one_line() -> Callable[[pytest.ExceptionInfo[EbscError]], str]:
    """Return the message of an error, and check that it is a single line."""

    def text_of(error: pytest.ExceptionInfo[EbscError]) -> str:
        text = str(error.value)
        assert text
        assert "\n" not in text
        return text

    return text_of


@pytest.fixture
def subspaces() -> Callable[[int, int, int], tuple[Tensor, Tensor]]:
    """Draw unit rows ``(40 K, E)`` of K random subspaces, 40 each, and their subspaces, ``(40 K,)``."""

    def make(k: int, width: int, dimension: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        bases = torch.linalg.qr(torch.randn(k, width, dimension, generator=generator)).Q
        points = torch.randn(k, 40, dimension, generator=generator) @ bases.transpose(1, 2)
        return F.normalize(points.flatten(0, 1), dim=1), torch.arange(k).repeat_interleave(40)

    return make


@pytest.fixture
def gradients_agree() -> Callable[[TrainableCoefficientModel, Tensor, Tensor], bool]:
    """Compare the gradients of a network's loss, in rows and parameters, with finite differences."""

    def check(model: TrainableCoefficientModel, queries: Tensor, dictionary: Tensor) -> bool:
        own = torch.tensor([0, -1, 2, 4])

        def loss(queries: Tensor, dictionary: Tensor, *parameters: Tensor) -> Tensor:
            return model.loss(queries, model.express(queries, dictionary, own))

        varied = (queries.requires_grad_(), dictionary.requires_grad_(), *model.parameters())
        return torch.autograd.gradcheck(loss, varied)

    return check


# Contract checks that our own parts take long over.
SLOW = ("test_contracts.py::test_elastic_net[no-square-matrix]",)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.endswith(SLOW):
            item.add_marker(pytest.mark.slow)
