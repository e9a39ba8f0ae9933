"""Each optimiser has a learning rate and a weight decay of its own."""

from __future__ import annotations

from typing import Literal

import pytest

from ebsc_core.config.schema import TrainOptions


@pytest.mark.parametrize(("optimizer", "own"), [("adamw", (1e-3, 1e-4)), ("sgd", (0.12, 5e-4))])
@pytest.mark.parametrize("given", [{}, {"lr": 0.5}, {"weight_decay": 0.0}])
def test_the_rates_are_the_optimizer_s_own_unless_others_are_given(
    optimizer: Literal["adamw", "sgd"], own: tuple[float, float], given: dict[str, float]
) -> None:
    found = TrainOptions(optimizer=optimizer, epochs=3, **given).resolved()
    expected = dict(zip(("lr", "weight_decay"), own, strict=True)) | given
    assert {"lr": found.lr, "weight_decay": found.weight_decay} == expected
    assert (found.optimizer, found.epochs) == (optimizer, 3)
    assert found.resolved() == found
