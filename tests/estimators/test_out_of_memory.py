"""A fit that runs out of memory says what a fit with a smaller batch does, and this is so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ebsc_core import EBSC
from ebsc_core.training.step import JointStep
from ebsc_core.utils.errors import TrainingError

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
ANEW = "with another batch_size it begins anew; a fit with run_dir would go on"


@pytest.mark.filterwarnings("ignore:trained in batches of 20")
@pytest.mark.parametrize("named", [False, True])
def test_whether_a_smaller_batch_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, named: bool
) -> None:
    out = {"run_dir": tmp_path / "run"} if named else {}
    model = EBSC(2, backbone="resnet10t", epochs=2, batch_size=20, cache=tmp_path / "cache", **out)
    real, taken = JointStep.__call__, []

    def call(*arguments: Any, **given: Any) -> Any:
        taken.append(1)
        if len(taken) == 4:
            raise torch.OutOfMemoryError
        return real(*arguments, **given)

    with monkeypatch.context() as patched:
        patched.setattr(JointStep, "__call__", call)
        with pytest.raises(TrainingError, match="goes on from epoch 2 of 2") as caught:
            model.fit(IMAGES)
    assert caught.value.__notes__ == ["to go on: fit again"] + [ANEW] * (not named)
    with caplog.at_level("INFO", "ebsc"):
        model.set_params(batch_size=10).fit(IMAGES)
    assert ("training goes on from epoch 2 of 2" in caplog.text) == named
