"""What deserves a second look is said after the result of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ebsc_core.report.advice import Advice, advice_from_figures
from ebsc_core.runs.store.saved import SavedRun

Ebsc = Callable[..., tuple[int, str, str]]
SAID = "worth a second look: "
# So many clusters of so few images are unsure, and the graph is in pieces.
UNSURE = ("run", "--backbone", "identity", "--epochs", "0", "--limit", "60", "--n-clusters", "20")
UNSURE = (*UNSURE, "--coefficients", "knn", "--no-report", "--out", "run")
REPORTED = tuple(word for word in (*UNSURE[:-1], "reported") if word != "--no-report")


def test_a_run_says_in_at_most_three_lines_what_its_figures_advise(ebsc: Ebsc, tmp_path: Path) -> None:
    code, out, err = ebsc(*UNSURE)
    assert code == 0, err
    advised = advice_from_figures(SavedRun(tmp_path / "run"))
    lines = [line.removeprefix(SAID) for line in out.splitlines() if line.startswith(SAID)]
    assert 0 < len(lines) == min(len(advised), 3)
    assert all(line.startswith(item.said) for line, item in zip(lines, advised, strict=False))
    assert out.index("run directory: run") < out.index(SAID)
    assert not any("`n_clusters`" in line for line in lines), "settings are spelled as flags"


@pytest.mark.usefixtures("with_reports")
def test_more_points_are_counted_and_quiet_runs_say_none(ebsc: Ebsc, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [Advice(f"point {number}.") for number in range(5)]
    monkeypatch.setattr("ebsc_core.report.advice.advice_from_figures", lambda run: points)
    for flags, where in ((UNSURE, "ebsc report run writes a report of all"), (REPORTED, "see the report")):
        lines = [line for line in ebsc(*flags).out.splitlines() if SAID in line]
        assert lines == [f"{SAID}point 0.", f"{SAID}point 1.", f"{SAID}point 2. (and 2 more, {where})"]
    assert SAID not in ebsc(*UNSURE[:-1], "again", "--quiet").out
