"""Cells run once, side by side, and whatever becomes of one leaves the others alone."""

from __future__ import annotations

import json
import os
import time
from itertools import pairwise
from pathlib import Path

import pytest

from ebsc_core.benchmark.suite import Suite
from ebsc_core.config.schema import RunConfig
from ebsc_core.utils.errors import ConfigError, Interrupted, RunDirectoryError
from support.bench import Bench, MakeSuite, StandIn


@pytest.fixture
def bench(suite: MakeSuite, stand_in: StandIn, tmp_path: Path) -> Bench:
    return Bench(suite, stand_in, tmp_path / "out")


ALL = ["knn 0", "energy 0", "knn 1", "energy 1"]


class TestResuming:
    def test_everything_runs_once_seed_by_seed(self, bench: Bench) -> None:
        first = bench()
        assert first.started == ALL
        assert {path.name for path in bench.out.iterdir()} >= {
            "results.json",
            "table.md",
            "table.html",
            "cells",
        }
        before = bench.files()
        assert len(before) == 4
        again = bench()
        assert again.started == []
        assert again.said.notes[0] == "4 of 4 cells are finished already"
        assert bench.files() == before
        assert again.results.entries == first.results.entries

    def test_a_new_row_or_seed_runs_alone_and_old_results_are_set_aside(
        self, bench: Bench, two_rows: str
    ) -> None:
        bench()
        text = two_rows + "[rows.more]\ntop_k = 3\ncoefficients.name = 'knn'\n"
        more = bench(text.replace("[0, 1]", "[0, 1, 2]"))
        assert more.started == ["knn 0", "knn 1", "knn 2", "energy 2", "knn 2"]
        assert "kept in" in more.said.warnings[0]
        assert len(list(bench.out.glob("until-*/table.md"))) == 1
        assert len(json.loads((bench.out / "results.json").read_text())["cells"]) == 9

    def test_rows_that_are_the_same_run_once(self, bench: Bench, two_rows: str) -> None:
        done = bench(two_rows + "[rows.again]\ncoefficients.name = 'knn'\n")
        assert done.started == ALL
        assert done.results.entries["again", "digits"].scores == done.results.entries["knn", "digits"].scores

    def test_steps_that_are_given_are_another_run_than_those_a_model_prefers(
        self, bench: Bench, two_rows: str
    ) -> None:
        steps = RunConfig().refine.steps
        done = bench(two_rows + f"[rows.refined]\ncoefficients.name = 'energy'\nrefine.steps = {steps}\n")
        assert done.started == ["knn 0", "energy 0", "energy 0", "knn 1", "energy 1", "energy 1"]

    def test_epochs_that_are_given_are_another_run_than_the_default(self, bench: Bench, one_row: str) -> None:
        """A backbone with trained weights trains for the given epochs, and for none by default."""
        open_epochs = one_row.replace("train.epochs = 0", "")
        longer = f"[rows.longer]\ncoefficients.name = 'knn'\ntrain.epochs = {RunConfig().train.epochs}\n"
        assert bench(open_epochs + longer).started == ["knn 0", "knn 0"]

    def test_other_code_finds_nothing(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        bench()
        monkeypatch.setattr("ebsc_core.benchmark.runner.source_digest", lambda registry: "other")
        assert bench().started == ALL

    def test_a_damaged_record_is_made_anew(self, bench: Bench, one_row: str) -> None:
        bench(one_row)
        (record,) = (bench.out / "cells").glob("*.json")
        whole = record.read_text()
        damaged = ["", "{", "[]", "null", "{}", "[" * 100_000]
        damaged += ['{"format": "ebsc-cell-1", "metrics": {}}', whole.replace('"acc": 0.5', '"acc": "high"')]
        damaged += [whole.replace("ebsc-cell-1", "ebsc-cell-0")]
        for content in damaged:
            assert content != whole
            record.write_text(content)
            assert bench(one_row).started == ["knn 0"]
            assert record.read_text() == whole

    @pytest.mark.parametrize("name", ["data.npz", "folder"])
    def test_changed_data_are_run_anew(self, bench: Bench, one_row: str, tmp_path: Path, name: str) -> None:
        file = tmp_path / name / "image.png" if name == "folder" else tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("one")
        text = one_row.replace('"digits"', f'"{tmp_path / name}"')
        assert bench(text).started == ["knn 0"]
        assert bench(text).started == []
        file.write_text("other")
        assert bench(text).started == ["knn 0"]

    @pytest.mark.parametrize("setting", ["backbone.weights", "like"])
    def test_changed_weights_and_runs_are_run_anew(
        self, bench: Bench, one_row: str, tmp_path: Path, setting: str
    ) -> None:
        file = tmp_path / "earlier" / "backbone.safetensors"
        file.parent.mkdir()
        file.write_text("one")
        named = file if setting == "backbone.weights" else file.parent
        text = one_row.replace("train.epochs", f'{setting} = "{named}"\ntrain.epochs')
        assert text != one_row
        assert bench(text).started == ["knn 0"]
        assert bench(text).started == []
        file.write_text("other")
        assert bench(text).started == ["knn 0"]

    def test_data_that_are_copied_are_the_same(self, bench: Bench, one_row: str, tmp_path: Path) -> None:
        file = tmp_path / "data.npz"
        file.write_text("one")
        text = one_row.replace('"digits"', f'"{file}"')
        assert bench(text).started == ["knn 0"]
        file.unlink()
        file.write_text("one")
        os.utime(file, (0, 0))
        assert bench(text).started == []

    def test_what_links_in_a_folder_lead_to_counts(self, bench: Bench, one_row: str, tmp_path: Path) -> None:
        target, folder = tmp_path / "elsewhere.png", tmp_path / "photos"
        folder.mkdir()
        (folder / "a.png").symlink_to(target)
        text = one_row.replace('"digits"', f'"{folder}"')
        assert bench(text).started == ["knn 0"]  # with a link that leads nowhere
        target.write_text("one")
        assert bench(text).started == ["knn 0"]
        assert bench(text).started == []
        target.write_text("other")
        assert bench(text).started == ["knn 0"]

    def test_so_does_what_is_in_linked_folders(self, bench: Bench, one_row: str, tmp_path: Path) -> None:
        folder, file = tmp_path / "photos", tmp_path / "elsewhere/cats/a.png"
        file.parent.mkdir(parents=True)
        folder.mkdir()
        (folder / "linked").symlink_to(tmp_path / "elsewhere")
        (file.parent / "back").symlink_to(folder)
        file.write_text("one")
        text = one_row.replace('"digits"', f'"{folder}"')
        assert bench(text).started == ["knn 0"]
        assert bench(text).started == []
        file.write_text("other")  # the dates of its folders stay
        assert bench(text).started == ["knn 0"]

    def test_large_data_are_not_read(
        self, bench: Bench, one_row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ebsc_core.benchmark.runner.READ", 2)
        file = tmp_path / "data.npz"
        file.write_text("one")
        text = one_row.replace('"digits"', f'"{file}"')
        assert bench(text).started == ["knn 0"]
        assert bench(text).started == []
        os.utime(file, (0, 0))
        assert bench(text).started == ["knn 0"]

    def test_data_that_change_meanwhile_break_nothing(
        self, bench: Bench, one_row: str, tmp_path: Path
    ) -> None:
        file = tmp_path / "data.npz"
        file.write_text("one")
        text = one_row.replace('"digits"', f'"{file}"')
        done = bench(text, body=f"open({str(file)!r}, 'a').write('x')")
        assert done.started == ["knn 0"]
        assert done.results.entries["knn", "digits"].scores

    def test_leftovers_of_killed_cells_are_removed_and_nothing_else(self, bench: Bench) -> None:
        cells = bench.out / "cells"
        (cells / ".abc.work" / "run").mkdir(parents=True)
        (cells / ".abc.json.123").write_text("half")
        (cells / ".keep").write_text("mine")
        bench()
        assert {name for name in bench.files() if name.startswith(".")} == {".keep"}


FAILURES = {
    "os._exit(3)": "exit 3",
    "os.kill(os.getpid(), signal.SIGKILL)": "killed by signal 9",
    "raise ValueError('broken')": "exit 1",
    "os._exit(0)": "exit 0",
    "outcome = {'failed': 'data.npz does not exist'}": "data.npz does not exist",
}


class TestFailing:
    def test_a_cell_that_fails_is_a_row_that_says_why_and_is_tried_again_alone(
        self, bench: Bench, one_row: str
    ) -> None:
        rows = "".join(f"[rows.{n}]\ntop_k = {n}\ncoefficients.name = 'knn'\n" for n in range(1, 7))
        text, how = one_row.partition("[rows")[0] + rows, list(FAILURES)
        body = "".join(f"if config['top_k'] == {n}: {action}\n" for n, action in enumerate(how, 1))
        done = bench(text, body=body)
        assert done.started == ["knn 0"] * 6
        table = (bench.out / "table.md").read_text().replace("\\", "")
        for number, expected in enumerate(FAILURES.values(), 1):
            (reason,) = done.results.entries[str(number), "digits"].failed
            assert expected in reason
            assert f"- {number} on digits: {reason}" in table
            assert f"[{number}/6] {number} · digits · seed 0 failed: {reason}" in done.said.warnings
        assert done.results.entries["6", "digits"].scores["acc"].mean == 50
        again = bench(text)
        assert again.started == ["knn 0"] * 5
        assert {entry.scores["acc"].mean for entry in again.results.entries.values()} == {50}
        assert "What failed" not in (bench.out / "table.md").read_text()
        assert not list((bench.out / "cells").glob("*.log"))

    def test_the_log_it_names_says_more(self, bench: Bench, one_row: str) -> None:
        done = bench(one_row, body="raise ValueError('broken')")
        (reason,) = done.results.entries["knn", "digits"].failed
        log = Path(reason.partition("see ")[2])
        assert "ValueError: broken" in log.read_text()
        assert list((bench.out / "cells").glob("*.log")) == [log]

    def test_a_process_that_cannot_start(self, bench: Bench, stand_in: StandIn) -> None:
        bench.stand_in = lambda body: stand_in(script="#!/bin/sh\nexit 7\n")  # it reads nothing
        done = bench(jobs=4)
        assert all("exit 7" in entry.failed[0] for entry in done.results.entries.values())

    def test_without_labels_the_line_has_no_gap(self, bench: Bench, one_row: str) -> None:
        done = bench(one_row, body="outcome['metrics']['scores'] = None")
        assert done.said.notes == ["[1/1] knn · digits · seed 0: 2 s"]


class TestJobs:
    @pytest.fixture
    def unlike(self, two_rows: str) -> str:
        """A suite of two rows that share no features."""
        return two_rows.replace("[rows.knn]", "[rows.knn]\nbackbone.name = 'identity'")

    def meeting(self, *names: str) -> str:
        """For the body of cells: these wait for one another, at most 20 seconds."""
        return f"""
names, until = {set(names)}, time.time() + 20
while f"{{part}} {{config['seed']}}" in names and time.time() < until:
    here = {{" ".join(line.split()[:2]) for line in open(started.name)}}
    if names <= here:
        break
    time.sleep(0.01)
"""

    def overlap(self, bench: Bench, one: str, other: str) -> bool:
        (a, b), (c, d) = bench.spans()[one], bench.spans()[other]
        return max(a, c) < min(b, d)

    def test_two_run_side_by_side(self, bench: Bench, unlike: str) -> None:
        bench(unlike, jobs=2, body=self.meeting("knn 0", "energy 0"))
        assert self.overlap(bench, "knn 0", "energy 0")

    def test_one_at_a_time_if_so_asked(self, bench: Bench, unlike: str) -> None:
        bench(unlike, jobs=1)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(sorted(bench.spans().values())))

    def test_features_another_is_making_are_waited_for(self, bench: Bench) -> None:
        bench(jobs=4, body=self.meeting("knn 0", "knn 1"))
        assert self.overlap(bench, "knn 0", "knn 1")
        assert not self.overlap(bench, "knn 0", "energy 0")
        assert not self.overlap(bench, "knn 1", "energy 1")

    @pytest.mark.parametrize("fails", [False, True])
    def test_features_that_were_made_are_waited_for_no_more(
        self, bench: Bench, one_row: str, monkeypatch: pytest.MonkeyPatch, fails: bool
    ) -> None:
        monkeypatch.setattr(Suite, "check", lambda self, registry: None)  # there are no such parts
        rows = "".join(f"[rows.{part}]\ncoefficients.name = '{part}'\n" for part in "abc")
        body = "if part == 'a': outcome = {'failed': 'x'}" if fails else self.meeting("b 0", "c 0")
        bench(one_row.partition("[rows")[0] + rows, jobs=3, body=body)
        assert not self.overlap(bench, "a 0", "b 0")
        assert self.overlap(bench, "b 0", "c 0") is not fails

    def test_without_a_cache_nobody_waits(self, bench: Bench) -> None:
        bench(jobs=2, body=self.meeting("knn 0", "energy 0"), cache="none")
        assert self.overlap(bench, "knn 0", "energy 0")

    @pytest.mark.parametrize(
        ("cpus", "given", "jobs", "expected"),
        [
            (8, None, 2, "4"),
            (8, None, 3, "2"),
            (2, None, 4, "1"),
            (8, "1", 2, "1"),
            (8, "64", 2, "4"),
            (8, "x", 2, "4"),
        ],
    )
    def test_threads_are_divided(
        self,
        bench: Bench,
        one_row: str,
        monkeypatch: pytest.MonkeyPatch,
        cpus: int,
        given: str | None,
        jobs: int,
        expected: str,
    ) -> None:
        monkeypatch.setattr("ebsc_core.benchmark.runner.processors", lambda: cpus)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if given:
            monkeypatch.setenv("OMP_NUM_THREADS", given)
        bench(one_row, jobs=jobs)
        assert {words[3] for words in bench.starts()} == {expected}
        assert f"\nOMP_NUM_THREADS={expected} ebsc run " in (bench.out / "table.md").read_text()

    def test_one_job_has_them_all(self, bench: Bench, one_row: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        bench(one_row)
        assert {words[3] for words in bench.starts()} == {"None"}
        assert "\nOMP_NUM_THREADS=16 ebsc run " in (bench.out / "table.md").read_text()


def test_a_long_silence_is_explained(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ebsc_core.benchmark.runner.PATIENCE_SECONDS", 0.3)
    slow = "if part == 'energy' and config.get('seed') == 0:\n    time.sleep(1.2)"
    began = time.monotonic()
    notes = bench(body=slow).said.notes
    elapsed = time.monotonic() - began
    assert 1 <= notes.count("still running: energy · digits · seed 0") <= elapsed / 0.3


class Interruption:
    """In place of ``time``: a KeyboardInterrupt as soon as a cell has left a folder in its midst."""

    def __init__(self, cells: Path) -> None:
        self.cells, self.pids = cells, [""]
        self.monotonic = time.monotonic

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
        if found := list(self.cells.glob(".*.work")):
            self.pids = [path.name.split(".")[1] for path in found]
            raise KeyboardInterrupt


def test_an_interrupt_keeps_what_is_finished(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    interruption = Interruption(bench.out / "cells")
    monkeypatch.setattr("ebsc_core.benchmark.runner.time", interruption)
    body = "if part == 'energy':\n    (record.parent / f'.{os.getpid()}.work').mkdir()\n    time.sleep(60)"
    with pytest.raises(Interrupted, match="finished cells are kept, the same command goes on"):
        bench(body=body)
    assert [words[:2] for words in bench.starts()] == [["knn", "0"], ["energy", "0"]]
    (pid,) = interruption.pids
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
    assert [name.rpartition(".")[2] for name in bench.files()] == ["json"]
    assert not (bench.out / "results.json").exists()
    monkeypatch.setattr("ebsc_core.benchmark.runner.time", time)
    assert bench().started == ALL[1:]


class TestTheFolder:
    @pytest.mark.parametrize("file", ["out", "out/cells"])
    def test_is_a_file(self, bench: Bench, one_row: str, file: str) -> None:
        path = bench.out.parent / file
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
        with pytest.raises(RunDirectoryError, match=r"cannot create .*out/cells.*`out`"):
            bench(one_row)
        assert path.read_text() == "mine"
        assert bench.lines() == []

    def test_holds_a_folder_of_the_name_of_results_which_is_moved_out_of_the_way(
        self, bench: Bench, one_row: str
    ) -> None:
        (bench.out / "results.json" / "x").mkdir(parents=True)
        assert bench(one_row).said.warnings

    @pytest.mark.parametrize("name", [".lock", "table.md"])
    def test_cannot_be_written(self, bench: Bench, one_row: str, name: str) -> None:
        (bench.out / name / "x").mkdir(parents=True)
        (bench.out / "cells").mkdir()
        with pytest.raises(RunDirectoryError, match=r"cannot write .*out: .*`out`"):
            bench(one_row)

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
    def test_may_not_be_written(self, bench: Bench, one_row: str) -> None:
        bench.out.mkdir(mode=0o500)
        with pytest.raises(RunDirectoryError, match="Permission denied"):
            bench(one_row)

    def test_is_in_use(self, bench: Bench, one_row: str) -> None:
        fcntl = pytest.importorskip("fcntl")
        bench(one_row)
        with (bench.out / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(RunDirectoryError, match=r"another benchmark is writing .*out"):
                bench(one_row)
        assert bench(one_row).started == []

    def test_is_not_made_for_a_suite_that_is_wrong(self, bench: Bench, suite: MakeSuite) -> None:
        with pytest.raises(ConfigError):
            bench(suite(settings=["coefficients.name=enrgy"]))
        assert not bench.out.exists()
