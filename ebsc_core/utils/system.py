"""Report the memory and processors for this process; processes that train together share the machine."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from ebsc_core.utils.launched import local_process_count


def available_memory() -> int | None:
    """Return the bytes of memory still available, caches included; None if the system does not tell."""
    try:
        match = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return None
    return int(match[1]) * 1024 // local_process_count() if match else None


def processors() -> int:
    """Return the number of processors for this process; at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, count // local_process_count())


def peak_memory_mib() -> int | None:
    """Return the peak memory of this process in MiB; None if the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    # Linux counts in KiB, macOS in bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
