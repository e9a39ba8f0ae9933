"""Read what a launcher (``torchrun``, ``accelerate launch``) says of the processes that it started."""

from __future__ import annotations

import os

from ebsc_core.utils.errors import DeviceError


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


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, "").strip()
    if not value:  # an empty variable says as little as none
        return default
    if not (value.isascii() and value.isdecimal()):
        raise DeviceError(
            f"the environment variable {name} is {value!r}, not a number; unset it, or start the processes "
            "with torchrun or accelerate launch"
        )
    return int(value)
