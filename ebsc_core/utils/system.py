"""What of the machine a process may use: several that train together share it."""

from __future__ import annotations

import os
import re
from pathlib import Path


def available_memory() -> int | None:
    """Bytes the system can still give, caches included; None where it does not say."""
    try:
        found = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 // _sharing() if found else None


def processors() -> int:
    """How many processors there are; at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, count // _sharing())


def _sharing() -> int:
    """The processes that a launcher has started on this machine to train as one."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))
