"""Write folders and zips of images, and read them again."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.plugins.interfaces import DataContext
from ebsc_plugins.datasets.folder import FolderOptions, resolve_folder, resolve_zip


@pytest.fixture(params=["folder", "zip"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a path for images, once as a folder and once as a zip."""
    return tmp_path / ("pictures.zip" if request.param == "zip" else "pictures")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a path for a folder of images."""
    return tmp_path / "pictures"


@pytest.fixture
def tiny() -> Callable[..., dict[str, bytes]]:
    """Make grey images with these names, all different."""

    def make(*names: str) -> dict[str, bytes]:
        files = {}
        for level, name in enumerate(names):
            buffer = io.BytesIO()
            Image.new("L", (4, 4), level).save(buffer, "PNG")
            files[name] = buffer.getvalue()
        return files

    return make


@pytest.fixture
def warned() -> list[str]:
    """Collect the warnings of ``read``."""
    return []


@pytest.fixture
def read(warned: list[str]) -> Callable[..., ImageSet]:
    """Read a folder or a zip, after writing files into it."""

    def write_and_read(
        path: Path,
        files: dict[str, bytes] | None = None,
        options: FolderOptions | None = None,
        **choices: Any,
    ) -> ImageSet:
        zipped = path.suffix == ".zip"
        if files is not None:
            (write_zip if zipped else write_folder)(path, files)
        spec = (resolve_zip if zipped else resolve_folder)(str(path))
        assert spec is not None
        assert callable(spec.factory)
        context = DataContext(Path("nowhere"), warn=warned.append, **choices)
        return spec.factory(options or FolderOptions(), context)

    return write_and_read


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def write_folder(path: Path, files: dict[str, bytes]) -> None:
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


@pytest.fixture
def pretend_encrypted() -> Callable[[Path], None]:
    """Set the flag for encrypted members in the local and central headers of a zip."""

    def set_flag(path: Path) -> None:
        content = bytearray(path.read_bytes())
        for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            at = content.find(signature)
            while at >= 0:
                content[at + offset] |= 1
                at = content.find(signature, at + 4)
        path.write_bytes(content)

    return set_flag
