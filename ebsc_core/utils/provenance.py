"""Record how a run is made: versions, the platform and the time."""

from __future__ import annotations

import platform
import re
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGES = ("ebsc", "torch", "torchvision", "timm", "scikit-learn", "scipy", "numpy", "h5py", "pluggy")


def provenance() -> dict[str, Any]:
    """Return the versions of the relevant packages, the platform of the machine and the time."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the relevant packages that are installed."""
    return {name: found for name in PACKAGES if (found := _version(name))}


def cuda_build() -> str | None:
    """Return the platform torch was built for, e.g. ``CUDA 13.2``, without importing torch.

    None if torch does not record it.
    """
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        source = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    for name, words in (("cuda", "CUDA"), ("hip", "ROCm"), ("xpu", "XPU")):
        if found := re.search(rf"^{name}\b.*=\s*['\"](.+?)['\"]", source, re.MULTILINE):
            return f"{words} {found[1]}"
    return "CPU only"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
