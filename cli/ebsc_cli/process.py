"""Handle one process of several that a launcher (``torchrun``, ``accelerate launch``) has started."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from ebsc_core.utils.errors import DeviceError, printable
from ebsc_core.utils.launched import GRACE, is_launched, local_process_index, process_count, process_index
from ebsc_core.utils.signals import ENDING

# A process looks this often whether its launcher is still there.
LOOK_SECONDS = 5.0
# How a terminal gets a red "error:".
RED = "\033[31merror:\033[0m"


def is_one_of_several() -> bool:
    """Tell whether a launcher has started other processes for the same run."""
    return _said(process_count, 1) > 1


def is_first() -> bool:
    """Tell whether this is the process that shows progress and writes files."""
    return _said(process_index, 0) == 0


def _said(number: Callable[[], int], otherwise: int) -> int:
    """Return what the launcher says, or ``otherwise`` if that is no number: the run itself reports it."""
    try:
        return number()
    except DeviceError:
        return otherwise


def end_with_launcher() -> None:
    """End this process like SIGTERM does, soon after the launcher that started it has ended.

    A launcher that is killed cannot end its processes, and would leave them to work for nobody.
    """
    if not is_launched():
        return
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def complain(message: str) -> None:
    """Print one line on standard error.

    The other processes of a machine need not repeat the line of its first process. They wait first, and the
    launcher ends them meanwhile.
    """
    if is_one_of_several() and _said(local_process_index, 0):
        try:
            time.sleep(GRACE)
        except KeyboardInterrupt:
            return
    line = f"ebsc: {printable(message)}"
    print(line.replace("error:", RED, 1) if shows_colors() else line, file=sys.stderr)


def shows_colors() -> bool:
    """Return whether standard error is a terminal that shows colours, and the user wants them.

    Rich answers this, too, but its import needs memory that may have run out.
    """
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") in ("dumb", "unknown")
    return sys.stderr.isatty() and not plain


def leave(status: int | None) -> NoReturn:
    """End this process, and do so at once if other processes may wait for it in vain."""
    if is_one_of_several() and status:
        # A normal exit would wait for communication that can no longer happen.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    # All is done and written. What Python still clears away would answer a signal by a traceback.
    for number in (signal.SIGINT, *ENDING):
        if signal.getsignal(number) != signal.SIG_IGN:
            atexit.register(signal.signal, number, signal.SIG_DFL)
    sys.exit(status)
