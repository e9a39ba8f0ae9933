"""Name the option that was probably meant by one that a command does not have."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

# Shorter words are part of too many names.
SHORTEST = 3


def unknown_option(error: Any, words: Sequence[str]) -> str:
    """Return the message of Typer's error about an option, with what was probably meant.

    Parameters
    ----------
    error : NoSuchOption
    words : sequence of str
        The command line.
    """
    parameters = error.ctx.command.get_params(error.ctx)
    known = [name for one in parameters for name in (*one.opts, *one.secondary_opts) if name[:1] == "-"]
    near = _near(_typed(error.option_name, words), known)
    return error.message + (f"; did you mean {' or '.join(near)}?" if near else "")


def _typed(option: str, words: Sequence[str]) -> str:
    """Return the option as it was typed; of ``-data``, which is one of four letters, only ``-d`` is known."""
    long = (f"-{word.partition('=')[0]}" for word in words if word.startswith(option) and len(word) > 2)
    return option if option.startswith("--") else next(long, option)


def _near(typed: str, known: Sequence[str]) -> list[str]:
    """Return similar options, else longer or shorter ones, else settings of this name."""
    if typed in known:
        return [typed]
    if near := get_close_matches(typed, known, n=2, cutoff=0.7):
        return near
    word = typed.lstrip("-")
    if len(word) < 2:
        return []
    parts = [name for name in known if len(word) >= SHORTEST and word in name]
    settings = [f"--set {name}=…" for name in _settings(word)] if "--set" in known else []
    return parts or settings


def _settings(word: str) -> list[str]:
    from ebsc_cli.completion import setting_names

    return [name for name in setting_names() if name.rpartition(".")[2] == word.replace("-", "_")]
