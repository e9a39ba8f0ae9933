"""What a stranger's run or file says reaches the terminal without control characters, and no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ebsc_cli.console import ConsoleProgress
from ebsc_cli.process import complain


def test_notes_and_warnings_keep_their_blanks_and_lines_and_nothing_that_a_terminal_obeys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = ConsoleProgress()
    shown.note("data          photos\x1b[2J\x9b1m\x07\nbackbone      pca")
    shown.warn("no  class \x1b]0;title\x07")
    out, err = capsys.readouterr()
    assert out == "data          photos [2J 1m \nbackbone      pca\n"
    assert err == "warning: no  class  ]0;title \n"


def test_an_error_is_one_line_that_any_terminal_can_show(capsys: pytest.CaptureFixture[str]) -> None:
    complain("error: no  run\n\x1b[31mred\x1b[0m\x9b2J")
    assert capsys.readouterr().err == "ebsc: error: no run [31mred [0m 2J\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_end_shows_no_traceback(number: signal.Signals) -> None:
    code = (
        "import atexit, os; from ebsc_cli.process import leave; from ebsc_core.utils.signals import listen\n"
        f"listen(); atexit.register(os.kill, os.getpid(), {int(number)})\n"
        "leave(0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -number
    assert done.stderr == ""


def test_who_reads_the_output_may_have_enough_of_it(ebsc, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(3000, 4)))
    assert ebsc("cluster", "rows.npy", "--n-clusters", "2", "--out", "run").code == 0
    for words in ("predict run rows.npy -o - --quiet", "runs . --json", "tree run"):
        command = [sys.executable, "-m", "ebsc_cli", *words.split()]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, cwd=tmp_path, text=True, **pipes) as process:
            process.stdout.close()
            assert process.stderr.read() == ""
        assert process.returncode == 1
