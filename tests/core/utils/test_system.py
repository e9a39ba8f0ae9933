from __future__ import annotations

from pathlib import Path

import pytest

from ebsc_core.utils import system

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 64 GiB available; its control groups are in a folder of the test."""
    (tmp_path / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:  {64 * GIB // 1024} kB\n")
    (tmp_path / "cgroup").write_text("")
    monkeypatch.setattr(system, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(system, "OWN_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(system, "GROUPS", tmp_path / "groups")
    return tmp_path


def limit(folder: Path, limit: int | str, used: int, cached: int, version: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("max", "current") if version == 2 else ("limit_in_bytes", "usage_in_bytes")
    (folder / f"memory.{names[0]}").write_text(f"{limit}\n")
    (folder / f"memory.{names[1]}").write_text(f"{used}\n")
    prefix = "" if version == 2 else "total_"
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file 5\n{prefix}inactive_file {cached}\n")


def test_without_groups_it_is_that_of_the_machine(machine: Path) -> None:
    assert system.available_memory() == 64 * GIB
    (machine / "cgroup").unlink()
    assert system.available_memory() == 64 * GIB


@pytest.mark.parametrize("inside", ["job/step", "job", ""])
def test_a_limit_of_the_group_or_of_one_above_counts(machine: Path, inside: str) -> None:
    (machine / "cgroup").write_text("0::/job/step\n")
    limit(machine / "groups" / "job/step", "max", GIB, 0, version=2)
    limit(machine / "groups" / inside, 8 * GIB, 3 * GIB, 5, version=2)
    assert system.available_memory() == 5 * GIB + 5


def test_files_that_are_only_cached_are_available(machine: Path) -> None:
    (machine / "cgroup").write_text("4:cpu,memory:/docker/abc\n3:pids:/docker/abc\n")
    # A container sees its own group as the top, and the path of /proc does not exist there.
    limit(machine / "groups" / "memory", 8 * GIB, 7 * GIB, 2 * GIB, version=1)
    assert system.available_memory() == 3 * GIB


def test_no_limit_and_a_limit_that_is_exceeded(machine: Path) -> None:
    (machine / "cgroup").write_text("0::/\n")
    limit(machine / "groups", "max", GIB, 0, version=2)
    assert system.available_memory() == 64 * GIB
    limit(machine / "groups", GIB, 2 * GIB, 0, version=2)
    assert system.available_memory() == 0
