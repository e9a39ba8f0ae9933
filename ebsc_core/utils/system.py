"""What of the machine a process may use: several that train together share it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path


def available_memory() -> int | None:
    """Bytes the system can still give, caches included; None where it does not say."""
    try:
        match = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return None
    return int(match[1]) * 1024 // _sharing() if match else None


def processors() -> int:
    """How many processors there are; at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, count // _sharing())


def _sharing() -> int:
    """The processes that a launcher has started on this machine to train as one."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def peak_memory_mib() -> int | None:
    """The most memory this process has held; None where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    # Linux counts in KiB, macOS in bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
