"""What a run is made with: versions, the platform, and the time."""

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
    """Versions of what matters, the machine's platform, and the time."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of the packages that matter, as far as they are installed."""
    return {name: found for name in PACKAGES if (found := _version(name))}


def cuda_build() -> str | None:
    """What torch was built for, e.g. ``CUDA 13.2``, without importing it; None if it does not say."""
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
