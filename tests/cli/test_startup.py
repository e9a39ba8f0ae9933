"""What somebody waits for who only wants to read: help and the list of plugins."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version

import pytest

from ebsc_cli.app import command
from ebsc_cli.commands import COMMANDS, load
from ebsc_core.config.schema import RunConfig
from ebsc_core.plugins.installed import installed_entry_points
from ebsc_core.plugins.kinds import REQUIRED
from ebsc_core.plugins.registry import Kind, Registry

HEAVY = ("accelerate", "torch", "torchvision", "timm", "sklearn", "scipy", "h5py")
# What takes longer to import than to print help, and what only some commands need.
SLOW = (*HEAVY, "numpy", "pydantic", "markdown_it", "pygments")


def ebsc(*arguments: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    wide = os.environ | {"COLUMNS": "250", "TERMINAL_WIDTH": "250", "NO_COLOR": "1"}
    command = [sys.executable, *python, "-m", "ebsc_cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=wide, timeout=60, check=True)


@pytest.mark.parametrize(
    ("arguments", "not_needed"),
    [
        (["--help"], SLOW),
        (["run", "--help"], SLOW),
        (["plugins", "list"], SLOW),
        (["plugins", "check", "--help"], SLOW),
        (["--version"], SLOW),
        (["runs", "--help"], HEAVY),
        (["export", "--help"], HEAVY),
    ],
    ids=str,
)
def test_reading_imports_nothing_heavy(arguments: list[str], not_needed: tuple[str, ...]) -> None:
    log = ebsc(*arguments, python=("-X", "importtime")).stderr
    imported = set(re.findall(r"\|\s+(\w+)\S*$", log, flags=re.MULTILINE))
    assert "ebsc_cli" in imported
    assert imported.isdisjoint(not_needed)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run --objective simcrl", "unknown objective 'simcrl': did you mean simclr?"),
        ("run --data nowhere/photos", "nowhere/photos does not exist"),
        ("run --set train.lrr=1", "unknown option 'train.lrr': did you mean 'train.lr'?"),
        ("cluster nowhere.npy", "nowhere.npy does not exist"),
        ("predict nowhere photos -o out.csv", "nowhere does not exist"),
        ("report nowhere", "nowhere does not exist"),
    ],
)
def test_a_mistake_that_is_known_at_once_is_reported_before_heavy_imports(words: str, said: str) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "ebsc_cli", *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"ebsc: error: {said}" in done.stderr
    imported = set(re.findall(r"\|\s+(\w+)\S*$", done.stderr, flags=re.MULTILINE))
    assert imported.isdisjoint({"torch", "sklearn", "scipy"})


def test_help_imports_no_command() -> None:
    log = ebsc("--help", python=("-X", "importtime")).stderr
    ours = set(re.findall(r"\|\s+(ebsc_cli\.\w+)$", log, flags=re.MULTILINE))
    assert ours.isdisjoint(entry.where.partition(":")[0] for entry in COMMANDS.values())


@pytest.mark.parametrize("path", COMMANDS)
def test_the_table_says_of_each_command_what_its_function_says(path: str) -> None:
    made, entry = load(path), COMMANDS[path]
    assert made.help.splitlines()[0] == entry.summary
    assert bool(entry.default) <= (entry.default in getattr(made, "commands", {}))


@pytest.mark.parametrize("path", COMMANDS)
def test_examples_are_commands_with_options_that_there_are(
    path: str, shell_words: Callable[[str], list[str]]
) -> None:
    words = shell_words(COMMANDS[path].example)
    made, context = command(), None
    while hasattr(made, "commands"):
        context = made.make_context("ebsc", words, parent=context, resilient_parsing=False)
        name, made, words = made.resolve_command(context, [*context._protected_args, *context.args])
    made.make_context(name, words, parent=context)


def test_versions_are_a_line_each() -> None:
    lines = ebsc("--version").stdout.splitlines()
    assert lines[0] == f"ebsc {version('ebsc')}"
    assert [line.split()[0] for line in lines[1:]] == [
        *("Python", "torch", "torchvision", "timm", "scikit-learn", "h5py", "pluggy")
    ]
    assert re.fullmatch(r"torch \S+ \((CUDA|ROCm|XPU) .+\)|torch \S+ \(CPU only\)", lines[2])


def test_importing_the_estimators_waits_for_no_torch() -> None:
    program = "from ebsc_core import EBSC, EnergySubspaceClustering; import sys; print(*sys.modules)"
    light = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(light.stdout.split()).isdisjoint(("torch", "torchvision", "timm", "h5py"))
    program = "import ebsc_core, sys; print(*sys.modules)"
    light = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(light.stdout.split()).isdisjoint(HEAVY)


@pytest.fixture(scope="module")
def help_text() -> str:
    return ebsc("run", "--help").stdout


def stated_default(help_text: str, flag: str) -> str:
    line = next(line for line in help_text.splitlines() if f"--{flag} " in line)
    match = re.search(r"\[default: (.+)\]", line)
    assert match, f"--{flag} states no default"
    return match[1]


@pytest.mark.parametrize("kind", REQUIRED)
def test_help_states_the_default_part(help_text: str, kind: Kind) -> None:
    ours = [found for found in installed_entry_points() if found[1].distribution == "ebsc"]
    assert stated_default(help_text, kind.section) == Registry(ours).default(kind)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("epochs", RunConfig().train.epochs),
        ("seed", RunConfig().seed),
        ("device", RunConfig().device),
        ("precision", RunConfig().precision),
    ],
)
def test_help_states_the_default_setting(help_text: str, flag: str, value: object) -> None:
    assert stated_default(help_text, flag) == str(value)
