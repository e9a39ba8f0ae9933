"""Report the memory and processors for this process; processes that train together share the machine."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from pathlib import Path

from ebsc_core.utils.launched import local_process_count

MEMORY, OWN_GROUPS, GROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Return the bytes of memory still available, caches included; None if the system does not tell.

    The limits of a container or of a job in a queue count, too: beyond them the process is killed, however
    much the machine has.
    """
    try:
        match = re.search(r"MemAvailable:\s*(\d+) kB", MEMORY.read_text())
    except OSError:
        return None
    if not match:
        return None
    return min([int(match[1]) * 1024, *_left_by_limits()]) // local_process_count()


def _left_by_limits() -> list[int]:
    """Return the bytes that each control group of this process leaves it, as far as they tell."""
    try:
        groups = [line.split(":", 2) for line in OWN_GROUPS.read_text().splitlines()]
    except OSError:
        return []
    left = []
    for _, controllers, path in groups:
        if controllers == "":
            top, names = GROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = GROUPS / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # A limit may be on any group above, and a container may see its own group as the top.
        own = top / path.strip("/")
        for folder in (own, *(parent for parent in own.parents if parent.is_relative_to(top))):
            with suppress(OSError, ValueError):  # no such file, or no limit ("max")
                limit, used = (int((folder / name).read_text()) for name in names[:2])
                cached = re.search(rf"^{names[2]} (\d+)", (folder / "memory.stat").read_text(), re.M)
                left.append(max(0, limit - used + (int(cached[1]) if cached else 0)))
    return left


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
