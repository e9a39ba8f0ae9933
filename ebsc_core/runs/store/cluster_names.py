"""Say which names a cluster may have: they are also names of folders, on any system."""

from __future__ import annotations

MAX_BYTES = 100
NAME_RULES = (
    f'a name is printable, of at most {MAX_BYTES} bytes, without any of / \\ : * ? " < > |, without a dot or '
    "a blank at an end, not a number, and neither 'none' nor a device of Windows (con, prn, aux, nul, com1 …)"
)
# What stands where images are in no cluster.
NONE = "none"
# Windows reserves the first of these as names of files.
PORTS = (f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))
RESERVED = {"con", "prn", "aux", "nul", *PORTS, NONE}


def is_usable(name: str) -> bool:
    """Return whether a cluster may have this name."""
    return (
        name != ""
        and name.isprintable()
        and len(name.encode("utf-8")) <= MAX_BYTES
        and not set(name) & set('/\\:*?"<>|')
        and name == name.strip(". ")
        and not name.isdigit()
        and name.casefold() not in RESERVED
    )
