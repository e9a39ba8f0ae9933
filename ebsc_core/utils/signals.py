"""Treat all signals that ask a program to end like Ctrl-C, and remember which one came.

The command line calls :func:`listen`. Without that, for instance in a user's own program, only Ctrl-C ends a
run in this way, and the other signals do what the program has decided.

======================  =========================================================
SIGINT (Ctrl-C)         ends; the second one ends at once
SIGTERM, SIGHUP         end, as queues, systems that shut down and closed terminals ask
SIGUSR1                 has training saved, which then goes on
======================  =========================================================
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Windows has not all of them.
ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
SAVING = getattr(signal, "SIGUSR1", None)
# Seconds that a process waits, after a signal, for the end of the process that it works for.
FOLLOWS = 60.0


class _Received:
    """Hold the signals that came."""

    ending: int | None = None
    """The first signal that asked this process to end."""
    saving = False
    """Whether training has to be saved."""


_received = _Received()


def listen() -> None:
    """Interrupt this process by a KeyboardInterrupt on every signal that asks it to end.

    A signal that is ignored stays so; ``nohup`` relies on that.
    """
    _received.ending, _received.saving = None, False
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)
    if SAVING is not None:
        signal.signal(SAVING, _save)
        # A launcher blocks it, see ebsc_core.utils.launch.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [SAVING])


def exit_status() -> int:
    """Return the exit status of a process that a signal has ended: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + (_received.ending or signal.SIGINT)


def must_save() -> bool:
    """Return whether SIGUSR1 came since the last call."""
    saving, _received.saving = _received.saving, False
    return saving


def asked_to_end() -> bool:
    """Return whether a signal has asked this process to end."""
    return _received.ending is not None


@contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Catch the signals inside the block; the yielded function returns whether one came.

    This way no step is left half done. The second Ctrl-C interrupts at once. The other signals may come
    several times, from a queue and from a launcher.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield lambda: False
        return
    came: list[int] = []

    def note(number: int, frame: Any) -> None:
        again = number == signal.SIGINT and number in came
        came.append(number)
        _received.ending = number
        if again:
            raise KeyboardInterrupt

    numbers = [signal.SIGINT, *(number for number in ENDING if signal.getsignal(number) is _end)]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow() -> None:
    """Leave it to another process what the signals do; this process ends when that one has ended.

    It ends by itself if it still runs some time after a signal.
    """

    def note(number: int, frame: Any) -> None:
        if _received.ending is None:
            _received.ending = number
            timer = threading.Timer(FOLLOWS, os._exit, [128 + number])
            timer.daemon = True
            timer.start()

    for number in [signal.SIGINT, *ENDING]:
        signal.signal(number, note)
    if SAVING is not None:
        signal.signal(SAVING, signal.SIG_IGN)


@contextmanager
def ignored() -> Iterator[None]:
    """Ignore the signals inside the block; a program that starts there ignores them for good."""
    numbers = [*ENDING, *([SAVING] if SAVING else [])]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: Any) -> None:
    if _received.ending is None:  # the first one is obeyed already
        _received.ending = number
        raise KeyboardInterrupt


def _save(number: int, frame: Any) -> None:
    _received.saving = True
