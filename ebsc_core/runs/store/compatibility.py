"""Compare the versions recorded in a ``run.toml`` with those installed now."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ebsc_core.config.schema import COMPONENT_SECTIONS, PROVENANCE, RunConfig, has_joint_phase
from ebsc_core.config.toml import read_toml
from ebsc_core.plugins.registry import Kind, Registry, UnknownComponentError

# A distribution and its version; any other text was not written by a run.
SUPPLIER = re.compile(r"[A-Za-z0-9][\w.-]* [\w.+!-]+")
KINDS = {kind.section: kind for kind in Kind} | {"joint": Kind.COEFFICIENTS}


def compare_suppliers(file: Path, config: RunConfig, registry: Registry, warn: Callable[[str], None]) -> None:
    """Warn if components of a recorded run now have another version or another supplier.

    Components that ``config`` has changed since are ignored. A file without a record causes no warning.

    Parameters
    ----------
    file : Path
        The file that ``config`` was loaded from.

    Raises
    ------
    UnknownComponentError
        If a component is missing, and its distribution is missing as well or has another version.
    """
    tree = read_toml(file)
    changed: dict[tuple[str, str], list[str]] = {}
    for section, name in _chosen(config).items():
        was = _at(tree, PROVENANCE, "parts", section)
        if not (isinstance(was, str) and SUPPLIER.fullmatch(was)) or name not in (
            _at(tree, section, "name"),
            section.partition(".")[2],
        ):
            continue
        try:
            now = str(registry.find(KINDS[section.partition(".")[0]], name).provider)
        except UnknownComponentError as error:
            installed = _installed(was)
            if installed == was:
                raise
            raise type(error)(f"{error}; {file} was made with {was}, {_state(was, installed)}") from error
        if now != was:
            changed.setdefault((was, now), []).append(section)
    for (was, now), sections in changed.items():
        warn(f"{file} was made with {was} ({', '.join(sections)}), now it is {now}: results may differ")


def _chosen(config: RunConfig) -> dict[str, str]:
    """Return the names of the components that a run needs, by section."""
    sections = [section for section in COMPONENT_SECTIONS if section != "joint" or has_joint_phase(config)]
    named = {section: getattr(config, section).name for section in sections}
    observers = {Kind.OBSERVER.settings(name): name for name in config.observers}
    return {section: name for section, name in (named | observers).items() if name}


def _at(tree: Any, *path: str) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _installed(supplier: str) -> str | None:
    """Return the same distribution with the version that is installed now."""
    distribution = supplier.partition(" ")[0]
    try:
        return f"{distribution} {version(distribution)}"
    except (PackageNotFoundError, ValueError):  # not the name of a distribution
        return None


def _state(was: str, installed: str | None) -> str:
    return f"now it is {installed}" if installed else f"which is not installed: pip install {_pin(was)}"


def _pin(supplier: str) -> str:
    return supplier.replace(" ", "==")
