"""A file of features in words, whoever wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ebsc_core.config.schema import FeaturesChoice
from ebsc_core.data.features.store import FORMAT
from ebsc_core.data.features.summary import feature_facts


@pytest.mark.parametrize(
    ("said", "ours"),
    [
        (FORMAT, True),
        ("other", False),
        ([1, 2, 3], False),
        ([FORMAT, FORMAT], False),
        ([FORMAT], False),
        (h5py.Empty("f"), False),
    ],
)
def test_only_a_format_of_ours_is_described_as_such(tmp_path: Path, said: Any, ours: bool) -> None:
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file["features"] = np.eye(4, dtype=np.float32)
        file.attrs["format"] = said
    facts = feature_facts(FeaturesChoice(path=str(path)))
    assert facts["rows"] == "4 of 4 numbers"
    assert ("made from" in facts) is ours
