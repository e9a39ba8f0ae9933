"""``ebsc runs``: what is below a folder, whatever state it is in."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from ebsc_core.runs.store.directory import RunDirectory
from ebsc_core.runs.store.listing import Listed, list_runs

RUN = """
n_clusters = 10
seed = 3
train.epochs = {epochs}
data.name = "{data}"
backbone.name = "resnet18"
objective.name = "simclr"
coefficients.name = "energy"
clusterer.name = "spectral"
[provenance]
created = "{created}"
"""
METRICS = {
    "images": 1797,
    "scores": {"acc": 0.9512, "nmi": 0.925, "ari": 0.903},
    "label_free": {"silhouette": None, "eigengap": 0.1, "within_cluster_mass": 0.971},
    "seconds": {"training": 60.0, "figures": 2.5},
}


def make(path: Path, created: str = "2026-01-02T03:04:05+00:00", epochs: int = 40, **metrics: object) -> Path:
    path.mkdir(parents=True)
    text = RUN.format(epochs=epochs, created=created, data="/photos/old ones")
    (path / "run.toml").write_text(text, encoding="utf-8")
    (path / "metrics.json").write_text(json.dumps(METRICS | metrics))
    (path / "assignments.csv").touch()
    return path


def by_name(folder: Path) -> dict[str, Listed]:
    return {Path(run.path).name: run for run in list_runs(folder)}


def test_newest_first_at_any_depth_and_only_runs(tmp_path: Path) -> None:
    make(tmp_path / "b", "2026-01-02T03:04:05+00:00")
    make(tmp_path / "deep/er/c", "2026-01-02T06:00:00+02:00")  # an hour later
    make(tmp_path / "a", "2026-01-01T03:04:05+00:00")
    make(tmp_path / ".hidden/d")
    (tmp_path / "tensorboard/b").mkdir(parents=True)
    assert [Path(run.path).name for run in list_runs(tmp_path)] == ["c", "b", "a"]
    assert [Path(run.path).name for run in list_runs(tmp_path / "b")] == ["b"]


def test_what_came_of_it(tmp_path: Path) -> None:
    make(tmp_path / "trained")
    make(tmp_path / "pixels", epochs=0, scores=None)
    found = by_name(tmp_path)
    one = found["trained"]
    assert (one.state, one.data, one.images, one.clusters, one.seed) == (
        "finished",
        "/photos/old ones",
        1797,
        10,
        3,
    )
    assert list(one.parts.values()) == ["resnet18", "simclr", "energy", "spectral"]
    assert (one.scores, one.seconds) == (METRICS["scores"], 62.5)
    assert one.label_free["within_cluster_mass"] == 0.971
    assert found["pixels"].scores is None
    assert "objective" not in found["pixels"].parts


def test_runs_on_features_are_runs(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    (run / "run.toml").write_text(
        "seed = 0\nfeatures.path = '/mine/f.npz'\ncoefficients.name = 'knn'\nclusterer.name = 'KMeans'"
    )
    (found,) = list_runs(tmp_path)
    assert (found.state, found.data) == ("finished", "/mine/f.npz")
    assert found.parts == {"coefficients": "knn", "clusterer": "KMeans"}


def test_what_is_not_finished_is_there(tmp_path: Path) -> None:
    asked = {"seed": 3, "data": {"name": "digits"}, "provenance": {"started": "2026-01-01T00:00:00+00:00"}}
    running = RunDirectory(tmp_path / "running", asked)
    with running:
        (tmp_path / "killed").mkdir()
        shutil.copy(tmp_path / "running/unfinished.toml", tmp_path / "killed")
        found = by_name(tmp_path)
    assert {name: run.state for name, run in found.items()} == {"running": "running", "killed": "unfinished"}
    assert found["killed"].when == "2026-01-01T00:00:00+00:00"
    assert found["killed"].clusters is None


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("run.toml", b"x = [", "TOML"),
        ("run.toml", b"data = 3", "run.toml is damaged"),
        ("run.toml", b"\xff\xfe\x00", "TOML"),
        ("run.toml", RUN.format(epochs=1, data="x", created="yesterday").encode(), "damaged"),
        ("run.toml", None, "run.toml"),
        ("metrics.json", b"{", "metrics.json is damaged"),
        ("metrics.json", b"[]", "metrics.json is damaged"),
        ("metrics.json", b'{"scores": null}', "metrics.json is damaged"),
        ("metrics.json", b"\xff", "metrics.json is damaged"),
        ("metrics.json", None, "metrics.json is missing"),
        ("unfinished.toml", b"x = [", "TOML"),
    ],
)
def test_what_is_damaged_is_said(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    make(tmp_path / "whole")
    broken = make(tmp_path / "broken") / name
    broken.unlink() if content is None else broken.write_bytes(content)
    found = by_name(tmp_path)
    assert found["whole"].state == "finished"
    assert found["broken"].state == "damaged"
    assert said in found["broken"].problem
    assert str(broken) in found["broken"].problem


def test_hundreds_take_no_time(tmp_path: Path) -> None:
    for number in range(300):
        make(tmp_path / f"run-{number}", training=[{"loss": 1 / 3, "stage": "warm-up"}] * 100)
    start = time.process_time()
    assert len(list_runs(tmp_path)) == 300
    assert time.process_time() - start < 1  # measured: 0.04


class TestTheCommand:
    def test_is_a_table(self, ebsc, tmp_path: Path) -> None:
        make(tmp_path / "runs/[first]")
        make(tmp_path / "runs/second", scores=None)
        make(tmp_path / "runs/third\n\x1b[31m")
        (tmp_path / "runs/second/metrics.json").write_text("{")
        done = ebsc("runs")
        assert (done.code, done.err) == (0, "")
        row = next(line for line in done.out.splitlines() if "[first]" in line)
        for cell in (
            "old ones",
            "resnet18 simclr energy spectral",
            "95.1",
            "92.5",
            "90.3",
            "0.971",
            "1 min 02 s",
        ):
            assert cell in row
        assert "damaged: runs/second/metrics.json is damaged" in done.out
        assert "\x1b[31m" not in done.out

    def test_keeps_paths_whole_on_a_narrow_terminal(self, ebsc, tmp_path: Path, monkeypatch) -> None:
        name = "runs/photos-of-a-long-name-resnet18-simclr-energy-spectral-0"
        make(tmp_path / name)
        monkeypatch.setenv("COLUMNS", "80")
        path, *lines = ebsc("runs").out.splitlines()
        assert path.split() == [name, "finished"]
        assert "resnet18 simclr energy spectral" in [line.strip() for line in lines]
        assert "ACC 95.1  NMI 92.5  ARI 90.3  within 0.971  time 1 min 02 s" in lines[-1]

    @pytest.mark.parametrize(
        ("created", "zone"),
        [("9999-12-31T23:59:59+00:00", "EAST-9"), ("0001-01-01T00:00:00+00:00", "WEST+9")],
    )
    def test_shows_the_ends_of_the_calendar(
        self, ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, created: str, zone: str
    ) -> None:
        make(tmp_path / "runs/first", created)
        with monkeypatch.context() as patch:
            patch.setenv("TZ", zone)
            time.tzset()
            done = ebsc("runs")
        time.tzset()
        assert done.code == 0, done.err
        assert created[5:16].replace("T", " ") in done.out

    def test_is_json_for_programs(self, ebsc, tmp_path: Path) -> None:
        make(tmp_path / "mine/first")
        done = ebsc("runs", "mine", "--json")
        (found,) = json.loads(done.out)
        assert found["path"] == "mine/first"
        assert found["scores"]["acc"] == 0.9512

    @pytest.mark.parametrize(("path", "said"), [("none", "does not exist"), ("file", "is a file")])
    def test_of_what_is_no_folder_is_one_line(self, ebsc, tmp_path: Path, path: str, said: str) -> None:
        (tmp_path / "file").touch()
        done = ebsc("runs", path)
        assert done.code == 2
        assert done.err.startswith(f"ebsc: error: {path} {said}")
        assert done.err.count("\n") == 1

    def test_of_an_empty_folder_says_so(self, ebsc, tmp_path: Path) -> None:
        assert ebsc("runs", ".").out == "no runs in .\n"
        assert ebsc("runs", ".", "--json").out == "[]\n"
