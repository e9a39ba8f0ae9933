"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("EBSC_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """The same random numbers whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets, where there is one."""
    folder = os.environ.get("EBSC_DATA_DIR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("EBSC_DATA_DIR names no folder of real data sets")
    return Path(folder).resolve()
