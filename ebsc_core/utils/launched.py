"""Read what a launcher (``torchrun``, ``accelerate launch``) says of the processes that it started."""

from __future__ import annotations

import os

from ebsc_core.utils.errors import DeviceError

# Seconds. When one process ends, the launcher ends the others on the same machine within this time.
GRACE = 3.0
REMEDY = "unset it, or start the processes with torchrun or accelerate launch"


def process_count() -> int:
    """Return the number of processes that train together; 1 without a launcher."""
    return _number("WORLD_SIZE", 1)


def local_process_count() -> int:
    """Return how many of these processes run on this machine; 1 without a launcher."""
    return _number("LOCAL_WORLD_SIZE", 1)


def is_launched() -> bool:
    """Return whether a launcher started this process, which it may have done for a single one."""
    return "LOCAL_WORLD_SIZE" in os.environ


def process_index() -> int:
    """Return the index of this process among all; the first one, 0, shows and writes."""
    return _number("RANK", 0)


def local_process_index() -> int:
    """Return the index of this process among those on this machine."""
    return _number("LOCAL_RANK", 0)


def check_numbers() -> None:
    """Check that the launcher's numbers fit each other, before the processes try to meet.

    Raises
    ------
    DeviceError
        If an index is not below its count.
    """
    for index, count in (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE")):
        value, limit = _number(index, 0), _number(count, 1)
        if value >= limit and count in os.environ:
            raise DeviceError(
                f"the environment variable {index} is {value}, but {count} is {limit}; {REMEDY}"
            )


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, "").strip()
    if not value:  # an empty variable says as little as none
        return default
    if not (value.isascii() and value.isdecimal() and int(value) >= default):  # no count is 0
        number = "a number above 0" if default else "a number"
        raise DeviceError(f"the environment variable {name} is {value!r}, not {number}; {REMEDY}")
    return int(value)
