"""One process among those that a launcher (``torchrun``, ``accelerate launch``) has started, and its end."""

from __future__ import annotations

import os
import sys
import time
from typing import NoReturn

from ebsc_core.utils.launched import local_process_index, process_count, process_index

# Within these seconds of a process's end the launcher ends the others.
GRACE = 3.0


def is_one_of_several() -> bool:
    """Whether a launcher has started other processes for the same run."""
    return process_count() > 1


def is_first() -> bool:
    """Whether this is the process that shows and writes."""
    return process_index() == 0


def complain(message: str) -> None:
    """One line on standard error.

    What the first process of a machine says, the others need not repeat: they are ended before they do.
    """
    if is_one_of_several() and local_process_index():
        time.sleep(GRACE)
    print(f"ebsc: {' '.join(message.split())}", file=sys.stderr)


def leave(status: int | None) -> NoReturn:
    """End this process, at once if others may wait for it in vain."""
    if is_one_of_several() and status:
        # A tidy end would wait for communication that can no longer happen.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
