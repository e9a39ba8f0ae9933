"""Help, and what somebody sees who mistypes an option."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from rich.text import Text

from ebsc_cli.commands import COMMANDS, load

Ebsc = Callable[..., tuple[int, str, str]]
COMMAND_PATHS = [path for path, entry in COMMANDS.items() if entry.where]


@pytest.fixture
def narrow(ebsc: Ebsc, monkeypatch: pytest.MonkeyPatch) -> Ebsc:
    monkeypatch.setenv("COLUMNS", "80")
    return ebsc


def parameters(path: str) -> list:
    return [one for one in load(path).params if not one.hidden]


@pytest.mark.parametrize("path", ["", *COMMANDS])
class TestHelp:
    def test_fits_80_columns_with_an_example_to_copy(self, narrow: Ebsc, path: str) -> None:
        code, out, err = narrow(*path.split(), "--help")
        assert (code, err) == (0, "")
        example = f"  {COMMANDS[path or 'run'].example}"
        assert example in out.splitlines()
        assert not [line for line in out.splitlines() if len(line) > 80 and line != example]

    def test_has_a_short_flag(self, narrow: Ebsc, path: str) -> None:
        assert narrow(*path.split(), "-h") == narrow(*path.split(), "--help")


@pytest.mark.parametrize("path", COMMAND_PATHS)
def test_no_word_is_broken(narrow: Ebsc, path: str) -> None:
    _, out, _ = narrow(*path.split(), "-h")
    shown = out.split()
    for one in parameters(path):
        words = Text.from_markup(one.help or "").plain.split()
        assert any(shown[at : at + len(words)] == words for at in range(len(shown))), one.name


@pytest.mark.parametrize("path", COMMAND_PATHS)
def test_what_takes_a_value_states_one_default_and_a_flag_no_type(ebsc: Ebsc, path: str) -> None:
    _, out, _ = ebsc(*path.split(), "-h")
    rows = re.sub(r"\n {8,}", " ", out).splitlines()  # the meaning of a long name is below it
    for one in parameters(path):
        name = one.opts[-1] if one.param_type_name == "option" else one.metavar or one.name.upper()
        (row,) = [row for row in rows if re.match(rf"  (-\w, )?{re.escape(name)}[ ,]", row)]
        switch = getattr(one, "is_flag", False) and not one.default
        assert row.count("[default: ") == (not one.required and not switch)
        assert f"{name} VALUE" not in row, "a metavar says what it takes"
    assert "<" not in out


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["run", "--output", "x"], "did you mean --out?"),
        (["run", "--clusters", "10"], "did you mean --n-clusters or --clusterer?"),
        (["run", "-data", "photos"], "did you mean --data?"),
        (["run", "--lr", "0.1"], " or --set train.lr=…?"),
        (["predict", "run", "photos", "--output", "x"], "did you mean --out?"),
        (["runs", "--lr", "0.1"], "No such option: --lr (see `ebsc runs --help`)"),
        (["run", "-z"], "No such option: -z (see `ebsc run --help`)"),
    ],
)
def test_an_unknown_option_names_the_one_that_was_probably_meant(
    ebsc: Ebsc, words: list[str], meant: str
) -> None:
    code, _, err = ebsc(*words)
    assert code == 2
    assert meant in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("variables", "colored"),
    [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({"TERM": "xterm", "NO_COLOR": "1"}, False)],
)
def test_errors_are_red_on_terminals_that_show_it(variables: dict[str, str], colored: bool) -> None:
    ours, theirs = pty.openpty()
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    command = [sys.executable, "-m", "ebsc_cli", "runs", "nowhere"]
    subprocess.run(command, stderr=theirs, env=plain | variables, timeout=60, check=False)
    os.close(theirs)
    said = os.read(ours, 10000).decode()
    assert ("\x1b[31merror:\x1b[0m nowhere does not exist" in said) == colored
    assert ("\x1b" in said) == colored
