"""The run directory: all of it or nothing."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from ebsc_core.runs.store.directory import RunDirectory, claim_path
from ebsc_core.utils.errors import RunDirectoryError
from ebsc_core.utils.hashing import digest
from ebsc_core.utils.paths import mark_cache
from ebsc_core.utils.provenance import provenance


def fill(out: Path, text: str = "1") -> None:
    with RunDirectory(out) as directory:
        directory.write_metrics({"x": text})


def break_off(out: Path, error: type[BaseException]) -> None:
    with RunDirectory(out) as directory:
        directory.write_metrics({"x": "1"})
        raise error


def break_off_beside_another_s(out: Path) -> None:
    with RunDirectory(out):
        (out / "mine").write_text("mine")
        raise ValueError


def written(out: Path) -> str:
    return json.loads((out / "metrics.json").read_text())["x"]


class TestAppearing:
    def test_only_on_success(self, tmp_path: Path) -> None:
        out = tmp_path / "run"
        with RunDirectory(out) as directory:
            directory.write_metrics({"x": 1})
            assert not (out / "metrics.json").exists()
        assert (out / "metrics.json").is_file()

    def test_nothing_else_remains(self, tmp_path: Path) -> None:
        fill(tmp_path / "run")
        assert [path.name for path in tmp_path.iterdir()] == ["run"]
        assert {path.name for path in (tmp_path / "run").iterdir()} == {
            "metrics.json",
            "checkpoints",
            "manifest",
        }

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_nothing_remains_after_an_error(self, tmp_path: Path, error: type[BaseException]) -> None:
        with pytest.raises(error):
            break_off(tmp_path / "run", error)
        assert list(tmp_path.iterdir()) == []

    def test_an_error_while_writing_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="JSON"), RunDirectory(tmp_path / "run") as directory:
            directory.write_metrics({"loss": float("nan")})
        assert list(tmp_path.iterdir()) == []

    def test_missing_parents_are_made(self, tmp_path: Path) -> None:
        fill(tmp_path / "a" / "b" / "run")
        assert written(tmp_path / "a" / "b" / "run") == "1"

    def test_its_permissions_are_those_of_any_folder(self, tmp_path: Path) -> None:
        fill(tmp_path / "run")
        (tmp_path / "plain").mkdir()
        assert (tmp_path / "run").stat().st_mode == (tmp_path / "plain").stat().st_mode


class TestRefusing:
    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("mine")
        with pytest.raises(RunDirectoryError, match=r"run is a file.*`out`"):
            RunDirectory(tmp_path / "run")

    def test_a_folder_that_holds_something(self, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("mine")
        with pytest.raises(RunDirectoryError, match=r"already holds files.*`out`"):
            RunDirectory(tmp_path)

    def test_a_link_to_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "run").symlink_to(tmp_path / "absent")
        with pytest.raises(RunDirectoryError):
            RunDirectory(tmp_path / "run")

    def test_a_path_below_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(RunDirectoryError, match="cannot create"), RunDirectory(tmp_path / "file" / "run"):
            pass

    def test_what_was_put_there_meanwhile_is_kept(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError):  # noqa: PT011 (ours)
            break_off_beside_another_s(tmp_path / "run")
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine"]

    def test_a_finished_run_is_not_overwritten(self, tmp_path: Path) -> None:
        fill(tmp_path / "run", "first")
        with pytest.raises(RunDirectoryError):
            fill(tmp_path / "run", "second")
        assert written(tmp_path / "run") == "first"


class TestAnEmptyFolder:
    def test_is_used(self, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        fill(tmp_path / "run")
        assert written(tmp_path / "run") == "1"

    def test_stays_the_same_folder(self, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir(mode=0o750)
        before = (tmp_path / "run").stat()
        fill(tmp_path / "run")
        after = (tmp_path / "run").stat()
        assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)

    def test_is_left_empty_by_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        with pytest.raises(KeyboardInterrupt):
            break_off(tmp_path / "run", KeyboardInterrupt)
        assert list((tmp_path / "run").iterdir()) == []

    def test_may_be_the_current_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "run").mkdir()
        monkeypatch.chdir(tmp_path / "run")
        fill(Path())
        assert written(Path()) == "1"

    def test_may_be_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
        fill(tmp_path / "run")
        assert written(tmp_path / "elsewhere") == "1"


NAMES = [
    "plain.png",
    'with "quotes", and commas.png',
    "two\nlines.png",
    "carriage\rreturn.png",
    os.fsdecode(b"bytes \xff\xe9.png"),
    "=1+1",
    " spaces ",
]


def read_assignments(out: Path) -> list[dict[str, str]]:
    with (out / "assignments.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


class TestAssignments:
    def write(self, out: Path, **more: list[object]) -> list[dict[str, str]]:
        clusters = list(range(-1, len(NAMES) - 1))
        with RunDirectory(out) as directory:
            directory.write_assignments({"image": NAMES, "cluster": clusters, **more})
        return read_assignments(out)

    def test_any_file_name_reads_back(self, tmp_path: Path) -> None:
        rows = self.write(tmp_path / "run")
        assert [row["image"] for row in rows] == NAMES

    def test_the_bytes_of_a_file_name_are_kept(self, tmp_path: Path) -> None:
        self.write(tmp_path / "run")
        assert b"bytes \xff\xe9.png" in (tmp_path / "run" / "assignments.csv").read_bytes()

    def test_columns_in_their_order_and_no_others(self, tmp_path: Path) -> None:
        labels = list(range(len(NAMES)))[::-1]
        rows = self.write(tmp_path / "run", label=labels)
        assert list(rows[0]) == ["image", "cluster", "label"]
        assert [int(row["cluster"]) for row in rows] == list(range(-1, len(NAMES) - 1))
        assert [int(row["label"]) for row in rows] == labels

    def test_columns_of_different_lengths_are_a_mistake(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="zip"):
            self.write(tmp_path / "run", label=[1])
        assert list(tmp_path.iterdir()) == []


class TestMetrics:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, float("-inf")]])
    def test_hold_finite_numbers_only(self, tmp_path: Path, value: object) -> None:
        with pytest.raises(ValueError, match="JSON"), RunDirectory(tmp_path / "run") as directory:
            directory.write_metrics({"loss": value})

    def test_may_lack_a_value(self, tmp_path: Path) -> None:
        with RunDirectory(tmp_path / "run") as directory:
            directory.write_metrics({"scores": None})
        assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == {"scores": None}


class TestClaimedPath:
    @pytest.fixture(autouse=True)
    def _here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def test_names_its_parts_and_seed(self) -> None:
        assert claim_path("data", ["one", "two"], 3).name.endswith("-data-one-two-s3")

    def test_holds_no_separator_of_a_part_s_name(self) -> None:
        assert claim_path("a/b:c", ["d/e"], 0).parent == Path("runs")

    def test_is_of_one_process_alone(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            paths = list(pool.map(lambda _: claim_path("data", ["one"], 0), range(40)))
        assert len(set(paths)) == 40
        assert all(list(path.iterdir()) == [] for path in paths)

    @pytest.mark.parametrize("letter", ["a", "é", "語", "🐈", os.fsdecode(b"\xff")])
    @pytest.mark.parametrize("length", [1, 60, 230, 1000])
    def test_is_never_too_long(self, letter: str, length: int) -> None:
        for parts in (["one", "two"], [letter * length] * 4):
            path = claim_path(letter * length, parts, 2**32 - 1)
            assert path.is_dir()
            assert path.name.endswith(f"-s{2**32 - 1}")
            fill(path)

    @pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("nowhere")])
    def test_where_no_folder_can_be_is_said(self, make: Callable[[Path], None]) -> None:
        make(Path("runs"))
        with pytest.raises(RunDirectoryError, match=r"cannot create runs/.*choose another `out`"):
            claim_path("data", ["one"], 0)


def test_provenance_names_what_was_installed() -> None:
    assert {"ebsc", "torch", "numpy"} <= provenance()["versions"].keys()


@pytest.mark.parametrize(
    ("cache", "missed"), [("other", True), ("none", True), ("cache", False), ("copied", False)]
)
def test_a_checkpoint_in_another_cache_is_noticed(tmp_path: Path, cache: str, missed: bool) -> None:
    name = f"{'0' * 24}.training.safetensors"
    for folder in ("cache", "copied"):
        mark_cache(tmp_path / folder)
        (tmp_path / folder / name).touch()
    kept = tmp_path / "cache" / name
    with suppress(ValueError), RunDirectory(tmp_path / "run", {"cache": str(kept.parent)}) as directory:
        directory.note_training(kept, {"images": 1})
        raise ValueError
    now = cache if cache == "none" else str(tmp_path / cache)
    with RunDirectory(tmp_path / "run", {"cache": now}, resuming=True) as directory:
        assert directory.elsewhere == (kept if missed else None)


def test_what_is_no_cache_is_not_searched_for_a_checkpoint(tmp_path: Path) -> None:
    kept = tmp_path / "folder" / f"{'0' * 24}.training.safetensors"
    kept.parent.mkdir()
    kept.touch()
    with suppress(ValueError), RunDirectory(tmp_path / "run", {"cache": str(kept.parent)}) as directory:
        directory.note_training(kept, {"images": 1})
        raise ValueError
    with RunDirectory(tmp_path / "run", {"cache": "none"}, resuming=True) as directory:
        assert directory.elsewhere is None


@pytest.mark.parametrize("name", [5, "", "../x.training.safetensors", f"{'x' * 300}.training.safetensors"])
def test_a_note_that_names_no_file_is_left_out(tmp_path: Path, name: object) -> None:
    file = tmp_path / f"{'0' * 24}.training.safetensors"
    with RunDirectory(tmp_path / "run") as directory:
        note = {"file": name, "made_from": {"images": digest(1)}}
        (directory.work_folder / "kept.json").write_text(json.dumps(note))
        assert directory.kept_training(file, {"images": 1}) == file
        assert directory.note_training(file, {"images": 2}) == []
