"""The directory of a run that is not finished: who holds it, what stays of it, and how it goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebsc_core.config.loading import load_config
from ebsc_core.runs.store.directory import RunDirectory
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.runs.store.unfinished import (
    LOCK,
    UNFINISHED,
    WORK,
    check_unfinished,
    is_at_work,
    is_unfinished,
    load_unfinished,
    unfinished_tables,
)
from ebsc_core.runs.store.verify import verify
from ebsc_core.utils.errors import EbscError, Interrupted, RunDirectoryError, advice
from ebsc_core.utils.files import locked
from ebsc_core.utils.paths import mark_cache

HOLDING = """
import sys, time
from pathlib import Path
from ebsc_core.runs.store.directory import RunDirectory

with RunDirectory(Path(sys.argv[1]), {"seed": 3}) as directory:
    directory.write_metrics({"x": "half"})
    print("at work", flush=True)
    time.sleep(60)
"""


def fill(out: Path, resuming: bool = False) -> None:
    with RunDirectory(out, resuming=resuming) as directory:
        directory.write_metrics({"x": 1})


def stop(out: Path, training: Path, error: BaseException, resuming: bool = False) -> None:
    with RunDirectory(out, {"seed": 3}, resuming) as directory:
        directory.write_metrics({"x": "half"})
        directory.training = training
        raise error


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/training").touch()
    return tmp_path / "cache/training"


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, at work in ``run``."""
    command = [sys.executable, "-c", HOLDING, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "at work\n"
    yield process
    process.kill()
    process.wait()


class TestWhatStays:
    def test_the_record_is_there_from_the_start_and_goes_at_the_end(self, tmp_path: Path) -> None:
        with RunDirectory(tmp_path / "run", {"seed": 3}):
            assert tomllib.loads((tmp_path / "run" / UNFINISHED).read_text()) == {"seed": 3}
        assert not is_unfinished(tmp_path / "run")
        assert not (tmp_path / "run" / WORK).exists()

    def test_nothing_if_no_training_is_kept(self, tmp_path: Path) -> None:
        with pytest.raises(EbscError) as raised:
            stop(tmp_path / "run", tmp_path / "none", EbscError("no luck"))
        assert advice(raised.value) == []
        assert list(tmp_path.iterdir()) == []

    def test_the_directory_if_training_is_kept(self, tmp_path: Path, kept: Path) -> None:
        with pytest.raises(EbscError, match=r"^no luck") as raised:
            stop(tmp_path / "a run", kept, EbscError("no luck"))
        assert advice(raised.value) == [f"to go on: ebsc resume '{tmp_path}/a run'"]
        assert is_unfinished(tmp_path / "a run")
        assert not is_at_work(tmp_path / "a run")

    def test_an_interrupt_says_how_to_go_on(self, tmp_path: Path, kept: Path) -> None:
        with pytest.raises(Interrupted, match="interrupted; to go on: ebsc resume"):
            stop(tmp_path / "run", kept, KeyboardInterrupt())

    def test_what_goes_on_and_fails_stays_as_it_was(self, tmp_path: Path, kept: Path) -> None:
        with pytest.raises(EbscError):
            stop(tmp_path / "run", kept, EbscError("no luck"))
        kept.unlink()
        with pytest.raises(EbscError):
            stop(tmp_path / "run", kept, EbscError("no luck"), resuming=True)
        assert is_unfinished(tmp_path / "run")

    def test_what_was_half_written_does_not_get_into_the_finished_run(
        self, tmp_path: Path, other: subprocess.Popen[str]
    ) -> None:
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert (tmp_path / "run" / WORK / "metrics.json").exists()
        with RunDirectory(tmp_path / "run", resuming=True) as directory:
            assert not (directory.work_folder / "metrics.json").exists()
        assert {path.name for path in (tmp_path / "run").iterdir()} == {"checkpoints", "manifest"}

    def test_what_was_killed_while_files_were_moved_is_finished(self, tmp_path: Path) -> None:
        fill(tmp_path / "run")
        (tmp_path / "run/checkpoints/old").touch()
        (tmp_path / "run" / UNFINISHED).touch()
        fill(tmp_path / "run", resuming=True)
        assert not list((tmp_path / "run/checkpoints").iterdir())
        assert not is_unfinished(tmp_path / "run")


class TestTwoAtOnce:
    def test_the_second_hears_of_the_first(self, tmp_path: Path, other: subprocess.Popen[str]) -> None:
        for resuming in (False, True):
            with pytest.raises(RunDirectoryError, match="another process"):
                fill(tmp_path / "run", resuming)
        with pytest.raises(RunDirectoryError, match="another process"):
            SavedRun(tmp_path / "run")
        assert is_at_work(tmp_path / "run")

    def test_who_began_in_between_is_left_alone(self, tmp_path: Path) -> None:
        late = RunDirectory(tmp_path / "run")
        with RunDirectory(tmp_path / "run"):
            with pytest.raises(RunDirectoryError, match="another process"):
                late.__enter__()
            assert is_unfinished(tmp_path / "run")
        fill(tmp_path / "other")
        (tmp_path / "other" / UNFINISHED).touch()
        late = RunDirectory(tmp_path / "other", resuming=True)
        (tmp_path / "other" / UNFINISHED).unlink()
        with pytest.raises(RunDirectoryError, match="holds no run"):
            late.__enter__()
        assert not (tmp_path / "other" / WORK).exists()

    def test_a_killed_process_holds_nothing(self, tmp_path: Path, other: subprocess.Popen[str]) -> None:
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert not is_at_work(tmp_path / "run")
        check_unfinished(tmp_path / "run")
        with pytest.raises(RunDirectoryError, match=r"is unfinished; to go on: ebsc resume .*, or choose"):
            RunDirectory(tmp_path / "run")
        with pytest.raises(RunDirectoryError, match=r"is unfinished; to go on: ebsc resume"):
            SavedRun(tmp_path / "run")

    def test_somebody_who_only_looks_does_not_stop_it(self, tmp_path: Path) -> None:
        with locked(tmp_path / "lock") as held:  # type: ignore[union-attr]
            assert held
        assert locked(tmp_path / "lock") is not None


class TestVerified:
    def test_what_runs_or_can_go_on_is_noted(self, tmp_path: Path) -> None:
        with RunDirectory(tmp_path / "run", {"seed": 3}) as directory:
            (_, note) = verify(tmp_path / "run")
            assert note == ("note", f"{tmp_path}/run is being written by another process; wait for it")
            directory.lock.close()  # type: ignore[union-attr]
            assert list(verify(tmp_path / "run")) == [
                ("ok", UNFINISHED),
                ("note", f"{tmp_path}/run is unfinished; to go on: ebsc resume {tmp_path}/run"),
            ]
            with (tmp_path / "run" / UNFINISHED).open("a") as file:
                file.write("top_k = 3\n")
            (failed, _) = verify(tmp_path / "run")
            assert failed[0] == "failed"
            assert "is not the file that was written" in failed[1]

    def test_what_is_no_run_fails(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for name, said in (("none", "does not exist"), ("file", "is a file"), ("", "no finished run")):
            ((status, text),) = verify(tmp_path / name)
            assert status == "failed"
            assert said in text


class TestTheRecord:
    def test_says_the_same_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        given = {
            "seed": 7,
            "refine.lr": 0.5,
            "cache": "kept",
            "objective.temperature": 0.3,
        }
        config = load_config(flags=given)
        tables = config.model_dump(mode="json", exclude={"out", "cache"})
        with RunDirectory(
            tmp_path / "run", unfinished_tables(config, tables, {"data": "ebsc 1"})
        ) as directory:
            directory.lock.close()  # type: ignore[union-attr]
            mark_cache(tmp_path / "kept")  # as the run would have done
            read = load_unfinished(tmp_path / "run", {"device": "cpu", "train.batch_size": None})
        assert read.refine.model_dump(exclude_unset=True) == {"lr": 0.5}
        assert (read.cache, read.device) == (str(tmp_path / "kept"), "cpu")
        assert read.out == str(tmp_path / "run")
        same = {"cache", "device", "out"}
        assert read.model_dump(exclude=same) == config.model_dump(exclude=same)

    def test_damage_is_named(self, tmp_path: Path) -> None:
        (tmp_path / UNFINISHED).write_text("seed = [")
        with pytest.raises(RunDirectoryError, match=r"unfinished\.toml.*TOML"):
            load_unfinished(tmp_path, {})

    @pytest.mark.parametrize(
        ("name", "said"), [("none", "does not exist"), ("file", "a file"), ("", "no run")]
    )
    def test_what_is_no_unfinished_run_is_said(self, tmp_path: Path, name: str, said: str) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(RunDirectoryError, match=said):
            check_unfinished(tmp_path / name)

    def test_a_finished_run_is_said_to_be(self, tmp_path: Path) -> None:
        with RunDirectory(tmp_path / "run") as directory:
            directory.write_config({})
        with pytest.raises(RunDirectoryError, match="is finished"):
            RunDirectory(tmp_path / "run", resuming=True)


def test_a_lock_without_its_folder_is_not_held(tmp_path: Path) -> None:
    assert not is_at_work(tmp_path)
    assert not (tmp_path / WORK / LOCK).exists()
