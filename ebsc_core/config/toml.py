"""Read TOML that strangers may have written.

Python's parser needs memory and time that grow with the square of a key's parts, and does not limit how deep
tables are nested. So the text is checked before it is parsed, and the tables before they are used.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from ebsc_core.utils.errors import ConfigError, shortened

# Characters of a file. The longest suites have a few thousand.
MAX_LENGTH = 1 << 17
# Tables within tables. No setting lies deeper than three.
MAX_DEPTH = 32
MAX_BITS = 3321  # of an integer: 1,000 digits; Python does not write those of 4,300
# Strings and comments, which may hold any dots. A string without an end reaches to the end.
STRINGS = re.compile(
    r"""
      \"{3} (?: [^"\\] | \\. | "(?!"") )*+ (?:\"{3,5})?
    | '{3} (?: [^'] | '(?!'') )*+ (?:'{3,5})?
    | " (?: [^"\\\n] | \\. )*+ "?
    | ' [^'\n]*+ '?
    | \# [^\n]*+
    """,
    re.DOTALL | re.VERBOSE,
)
LONG_KEY = re.compile(rf"(?:\.[^.=,\n\[\]{{}}]*+){{{MAX_DEPTH}}}")


def read_toml(file: Path, errors: str = "surrogateescape") -> dict[str, Any]:
    """Read the tables of a TOML file without checking their names and values.

    Parameters
    ----------
    errors : str
        What to do about bytes that are not UTF-8. By default they are kept, since a path may hold them.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not valid TOML, or is larger or deeper than any configuration.
    """
    try:
        # A shell's <(…) is a pipe, too, and has a name of the first kind.
        if file.is_fifo() and file.parent not in (Path("/dev/fd"), Path("/proc/self/fd")):
            raise ConfigError(f"{file} is a pipe; give the path of a file")
        with file.open(encoding="utf-8-sig", errors=errors) as opened:
            text = opened.read(MAX_LENGTH + 1)
        if len(text) > MAX_LENGTH:
            raise ConfigError(f"{file} is too large for a configuration: over {MAX_LENGTH} characters")
        return parse_toml(text)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(f"{file} is not valid TOML: {shortened(str(error))}") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML.

    Raises
    ------
    ValueError
        If it is no TOML, is nested too deep, or holds an integer of more than 1,000 digits.
    """
    if LONG_KEY.search(STRINGS.sub("''", text)):
        raise ValueError(f"a key has more than {MAX_DEPTH} parts")
    try:
        tables = tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    check_values(tables)
    return tables


def check_values(tables: Any) -> None:
    """Check that tables are not nested too deep, and that integers have at most 1,000 digits.

    Raises
    ------
    ValueError
        If one is not.
    """
    level = [tables]
    for _ in range(MAX_DEPTH):
        if any(isinstance(value, int) and value.bit_length() > MAX_BITS for value in level):
            raise ValueError("an integer has more than 1,000 digits")
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise ValueError(f"it is nested too deep: over {MAX_DEPTH} tables and lists within one another")
