"""Check the names of clusters, which are also names of folders on any system."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path

from ebsc_core.config.toml import read_toml
from ebsc_core.utils.errors import ConfigError, shortened

MAX_BYTES = 100
RULES = (
    f'a name is printable, of at most {MAX_BYTES} bytes, without any of / \\ : * ? " < > |, without a dot or '
    "a blank at an end, not a number, and not 'none'"
)
# Windows reserves the first of these as names of files; images of no cluster lie in the folder of the last.
RESERVED = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)),
    "none",
}


def checked_names(wanted: Mapping[int, str], taken: Mapping[int, str]) -> dict[int, str]:
    """Return the wanted names in Unicode's composed form; an empty name takes one away.

    Raises
    ------
    ConfigError
        If a name breaks a rule, or two clusters would have the same one, however it is capitalized.
    """
    names = {number: unicodedata.normalize("NFC", name) for number, name in wanted.items()}
    for number, name in names.items():
        if name and not _is_usable(name):
            raise ConfigError(f"cluster {number} cannot be called {shortened(name)!r}: {RULES}")
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
        if not (key.isascii() and key.isdigit() and isinstance(name, str)):
            raise ConfigError(f'{path}: {shortened(key)} is no line of the form 3 = "herbs"')
    if not tables:
        raise ConfigError(f'{path} holds no names; write lines of the form 3 = "herbs"')
    names = {int(key): name for key, name in tables.items()}
    if len(names) < len(tables):
        raise ConfigError(f"{path} names a cluster twice")
    return names


def _is_usable(name: str) -> bool:
    return (
        name.isprintable()
        and len(name.encode("utf-8", "surrogatepass")) <= MAX_BYTES
        and not set(name) & set('/\\:*?"<>|')
        and name == name.strip(". ")
        and not name.isdigit()
        and name.casefold() not in RESERVED
    )
