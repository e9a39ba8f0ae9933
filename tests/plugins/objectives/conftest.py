"""Provide small objectives for tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ebsc_core.plugins.interfaces import Backbone, Objective


class Tiny(Backbone):
    def __init__(self) -> None:
        super().__init__()
        self.width = 6
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


@pytest.fixture
def build() -> Callable[..., Objective]:
    """Build an objective of this class, with these options, on a tiny backbone for 4x4 images."""

    def call(kind: type[Objective], **options: float) -> Objective:
        return kind(kind.Options(**{"hidden": 8, "width": 4} | options), Tiny())

    return call


@pytest.fixture
def views() -> Callable[..., tuple[Tensor, Tensor]]:
    """Draw two batches of random 4x4 images."""

    def call(batch: int = 5) -> tuple[Tensor, Tensor]:
        return torch.rand(batch, 1, 4, 4), torch.rand(batch, 1, 4, 4)

    return call
