"""``ebsc doctor``: what is there is said, what is broken is a line, and the exit status tells."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ebsc_core.runs import doctor
from ebsc_core.runs.doctor import FAILED, LOOKED_AT, NOTE, OK, Finding, examine
from ebsc_core.utils.errors import DataError


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Finding]]:
    """The findings on these topics alone."""

    def look(*topics: str) -> list[Finding]:
        monkeypatch.setattr(doctor, "LOOKED_AT", {topic: LOOKED_AT[topic] for topic in topics})
        return list(examine())

    return look


def test_everything_is_looked_at_and_a_run_made(
    ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(doctor.SELF_TEST, "data.limit", 40)
    monkeypatch.setitem(doctor.SELF_TEST, "train.batch_size", 20)
    done = ebsc("doctor", "--json")
    assert (done.code, done.err) == (0, "")
    record = json.loads(done.out)
    assert record["ok"]
    assert list(dict.fromkeys(one["topic"] for one in record["findings"])) == list(LOOKED_AT)
    text = {one["topic"]: one["text"] for one in record["findings"]}
    assert text["self-test"].startswith("a run on 40 images")
    assert "--precision auto takes" in text["precision"]
    assert list(tmp_path.iterdir()) == []


def test_extras_are_those_of_the_distribution(
    only: Callable[..., list[Finding]], monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = ["acme>=2; extra == 'fast'", "numpy>=1; extra == 'maths'", "scipy>=99; extra == 'new'", "h5py"]

    class Metadata:
        def get_all(self, name: str) -> list[str]:
            return declared if name == "Requires-Dist" else ["fast", "maths", "new"]

    monkeypatch.setattr(doctor, "metadata", lambda name: Metadata())
    fast, maths, new = only("extras")
    assert fast == Finding("extras", NOTE, "fast: acme (not installed); pip install 'ebsc[fast]'")
    assert maths == Finding("extras", OK, f"maths: numpy {version('numpy')}")
    assert new.text == f"new: scipy ({version('scipy')} is installed); pip install 'ebsc[new]'"


def test_an_absent_package_is_a_line(
    only: Callable[..., list[Finding]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(name: str) -> str:
        if name == "timm":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor, "version", without)
    failed = [one.text for one in only("installed") if one.status == FAILED]
    assert len(failed) == 1
    assert failed[0].startswith("timm")
    assert "not installed; pip install 'timm" in failed[0]


def test_what_cannot_be_imported_is_a_line(
    only: Callable[..., list[Finding]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert [one.status for one in only("devices", "memory")] == [FAILED, OK]


def test_a_broken_plugin_is_a_line(
    ebsc, only: Callable[..., list[Finding]], monkeypatch: pytest.MonkeyPatch, tmp_path_factory
) -> None:
    site = tmp_path_factory.mktemp("site")
    (site / "acme_broken.py").write_text("raise SystemExit('no luck\\n\\x1b[31m')")
    info = site / "acme-4.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 4.2\n")
    (info / "entry_points.txt").write_text("[ebsc]\nacme = acme_broken\n")
    monkeypatch.syspath_prepend(site)
    found = only("plugins")
    assert [one.status for one in found if "acme 4.2" in one.text] == [FAILED]
    assert "ebsc-parts" in " ".join(one.text for one in found if one.status == OK)
    done = ebsc("doctor")
    assert done.code == 1
    assert "✗ acme of acme 4.2: SystemExit: no luck" in done.out
    assert "1 failed" in done.out
    assert "Traceback" not in done.out + done.err


@pytest.mark.parametrize(
    "error", [DataError("no digits"), RuntimeError("no digits"), SystemExit("no digits")]
)
def test_a_self_test_that_fails_says_why(
    ebsc, monkeypatch: pytest.MonkeyPatch, error: BaseException, only: Callable[..., list[Finding]]
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr("ebsc_core.runs.run.run", fail)
    (found,) = only("self-test")
    assert found.status == FAILED
    assert found.text.endswith("no digits")
    assert ebsc("doctor").code == 1


def test_disks_that_are_full_or_closed_are_noted(
    only: Callable[..., list[Finding]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EBSC_CACHE_DIR", str(tmp_path / "not/there"))
    for free, status in ((doctor.LITTLE_DISK, OK), (doctor.LITTLE_DISK - 1, NOTE)):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        assert [one.status for one in only("disk")] == [status] * 3
    assert all("that is little" in one.text for one in only("disk"))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert f"{tmp_path} cannot be written" in only("disk")[0].text


def test_more_threads_than_processors_are_noted(
    only: Callable[..., list[Finding]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "processors", lambda: 0)
    assert only("threads")[0].status == NOTE
