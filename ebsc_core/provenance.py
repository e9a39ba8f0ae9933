"""What a run is made with: versions, the platform, and the time."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("ebsc", "torch", "torchvision", "timm", "scikit-learn", "scipy", "numpy", "h5py", "pluggy")


def provenance() -> dict[str, Any]:
    """Versions of what matters, the machine's platform, and the time."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
