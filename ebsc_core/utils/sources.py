"""Find and digest the source code of packages."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path


def package_sources(package: str) -> list[tuple[str, Path]]:
    """Return the Python files of a package or of a single-file module, with their names in it."""
    try:
        package_spec = find_spec(package)
    except ValueError:  # a module that was made in memory, or __main__
        return []
    if package_spec is None:
        return []
    if package_spec.submodule_search_locations is None:
        return (
            [(package, Path(package_spec.origin))]
            if package_spec.has_location and package_spec.origin
            else []
        )
    folders = [Path(folder) for folder in package_spec.submodule_search_locations]
    return [(f"{package}/{file.relative_to(f)}", file) for f in folders for file in sorted(f.rglob("*.py"))]


def package_digest(package: str) -> str:
    """Compute the digest of the source of a package; of one without source files, that of nothing."""
    state = hashlib.blake2b(digest_size=12)
    for name, file in package_sources(package):
        state.update(name.encode() + file.read_bytes())
    return state.hexdigest()
