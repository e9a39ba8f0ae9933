"""Check and read the names that a person gives to clusters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from ebsc_core.config.toml import read_toml
from ebsc_core.runs.store.cluster_names import NAME_RULES, is_usable
from ebsc_core.utils.errors import ConfigError, shortened

# No cluster has a number of ten digits.
NUMBER = re.compile(r"[0-9]{1,9}")


def checked_names(wanted: Mapping[int, str], taken: Mapping[int, str]) -> dict[int, str]:
    """Return the wanted names in Unicode's composed form; an empty name takes one away.

    Raises
    ------
    ConfigError
        If a name is no text or breaks a rule, or two clusters would have the same one, however it is
        capitalized.
    """
    for number, name in wanted.items():
        if not isinstance(name, str):
            raise ConfigError(
                f"the name of cluster {number} must be text, not {shortened(repr(name))}; an empty text "
                "takes a name away"
            )
    names = {number: unicodedata.normalize("NFC", name) for number, name in wanted.items()}
    for number, name in names.items():
        if name and not is_usable(name):
            raise ConfigError(f"cluster {number} cannot be called {shortened(name)!r}: {NAME_RULES}")
    owners: dict[str, int] = {}
    for number, name in (dict(taken) | names).items():
        if name and owners.setdefault(name.casefold(), number) != number:
            raise ConfigError(
                f"clusters {owners[name.casefold()]} and {number} cannot both be called {name!r}; give each "
                "a name of its own"
            )
    return names


def read_names(path: Path) -> dict[int, str]:
    """Read names from a TOML file with lines like ``3 = "herbs"``.

    Raises
    ------
    ConfigError
        If the file cannot be read or holds something else.
    """
    tables = read_toml(path)
    for key, name in tables.items():
        if not (NUMBER.fullmatch(key) and isinstance(name, str)):
            raise ConfigError(f'{path}: {shortened(key)} is no line of the form 3 = "herbs"')
    if not tables:
        raise ConfigError(f'{path} holds no names; write lines of the form 3 = "herbs"')
    names = {int(key): name for key, name in tables.items()}
    if len(names) < len(tables):
        raise ConfigError(f"{path} names a cluster twice")
    return names
