"""Provide folders of pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from support.photographs import photographs


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder of ``n`` PNG pictures ``000.png`` … of a side."""

    def write(n: int = 60, side: int = 48) -> Path:
        folder = tmp_path / "photos"
        folder.mkdir()
        for number, pixels in enumerate(photographs(n, side)):
            Image.fromarray(pixels).save(folder / f"{number:03}.png")
        return folder

    return write
