"""Settings in messages are read as flags on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any, get_args, get_type_hints

import pytest
import typer

from ebsc_cli.cluster import cluster
from ebsc_cli.commands import COMMANDS
from ebsc_cli.flags import in_flags
from ebsc_cli.run import run
from ebsc_core.config.flags import FLAGS


def options(command: Callable[..., Any]) -> set[str]:
    """The flags of a command, by what typer makes of its parameters."""
    found = set[str]()
    hints = get_type_hints(command, include_extras=True)
    for name in inspect.signature(command).parameters:
        declared = getattr(get_args(hints[name])[-1], "param_decls", None) or ()
        found |= set(declared) or {"--" + name.replace("_", "-")}
    return found


def test_every_flag_of_the_table_is_one_of_a_command() -> None:
    assert {flag for flag, _ in FLAGS.values()} <= options(run) | options(cluster)
    assert {flag for flag, kind in FLAGS.values() if kind} <= options(run)


WHERE = sorted({entry.where for entry in COMMANDS.values() if entry.where})


@pytest.mark.parametrize("flag", ["--data-root", "--limit", "--skip-bad-images", "--devices"])
def test_an_option_of_several_commands_is_the_same_in_all(flag: str) -> None:
    found = list[tuple[Any, ...]]()
    for where in WHERE:
        module, _, function = where.partition(":")
        hints = get_type_hints(getattr(import_module(module), function), include_extras=True)
        for name, hint in hints.items():
            declared = get_args(hint)[-1] if get_args(hint) else None
            if "--" + name.replace("_", "-") == flag and isinstance(declared, typer.models.OptionInfo):
                found.append((where, declared.metavar, declared.help))
    assert len(found) > 1
    assert len({one[1:] for one in found}) == 1, found


@pytest.mark.parametrize("where", WHERE)
def test_an_option_whose_placeholder_is_its_name_is_spelled(where: str) -> None:
    """Typer 0.27 calls such an option by its placeholder, ``--DATA``, unless it is spelled."""
    module, _, function = where.partition(":")
    command = getattr(import_module(module), function)
    hints = get_type_hints(command, include_extras=True)
    for name in inspect.signature(command).parameters:
        declared = get_args(hints[name])[-1]
        if isinstance(declared, typer.models.OptionInfo) and (declared.metavar or "").lower() == name:
            spelled = isinstance(declared.default, str)  # the first argument, which Annotated re-reads
            assert spelled, f"{where} has an option {name} that is not spelled"


@pytest.mark.parametrize(
    ("message", "read"),
    [
        ("try a larger `n_clusters`.", "try a larger --n-clusters."),
        ("found by `n_clusters=auto`", "found by --n-clusters auto"),
        ("lower `train.batch_size`", "lower --batch-size"),
        ("use `search.method=exact`", "use --set search.method=exact"),
        ("raise `top_k`", "raise --set top_k"),
        ("`device=cuda:1`: each process", "--device cuda:1: each process"),
        ("`devices` is 4", "--devices is 4"),
        ("see `ebsc plugins list`", "see `ebsc plugins list`"),
        ("`register_buffer` and `factory(options)`", "`register_buffer` and `factory(options)`"),
    ],
)
def test_a_setting_in_backticks_is_read_as_its_flag(message: str, read: str) -> None:
    assert in_flags(message) == read
