"""What a launcher says of the processes that it started."""

from __future__ import annotations

import sys

import pytest

from ebsc_core.utils.errors import DeviceError
from ebsc_core.utils.launched import (
    check_numbers,
    is_launched,
    local_process_count,
    local_process_index,
    process_count,
    process_index,
)

READ = {
    "WORLD_SIZE": process_count,
    "LOCAL_WORLD_SIZE": local_process_count,
    "RANK": process_index,
    "LOCAL_RANK": local_process_index,
}


@pytest.mark.parametrize("name", READ)
def test_a_number_is_read_and_an_empty_one_is_none(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name, raising=False)
    default = READ[name]()
    assert default == (1 if "SIZE" in name else 0)
    for value, expected in (("3", 3), (" 3 ", 3), ("", default), (" ", default)):
        monkeypatch.setenv(name, value)
        assert READ[name]() == expected


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("value", ["abc", "-1", "1.5", "²"])
def test_what_is_no_number_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(DeviceError, match=f"{name} is '{value}', not a number"):
        READ[name]()


@pytest.mark.parametrize("name", ["WORLD_SIZE", "LOCAL_WORLD_SIZE"])
def test_there_is_at_least_one_process(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "0")
    with pytest.raises(DeviceError, match=f"{name} is '0', not a number above 0"):
        READ[name]()


@pytest.mark.parametrize(("index", "count"), [("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE")])
def test_a_process_is_one_of_its_number(monkeypatch: pytest.MonkeyPatch, index: str, count: str) -> None:
    for name in READ:
        monkeypatch.delenv(name, raising=False)
    check_numbers()
    monkeypatch.setenv(count, "2")
    for value in ("0", "1", ""):
        monkeypatch.setenv(index, value)
        check_numbers()
    monkeypatch.setenv(index, "2")
    with pytest.raises(DeviceError, match=f"{index} is 2, but {count} is 2"):
        check_numbers()


def test_a_launcher_is_known_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert not is_launched()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert is_launched()


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc', not a number above 0"),
        ({"WORLD_SIZE": "2", "RANK": "x"}, "RANK is 'x', not a number"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is 2, but WORLD_SIZE is 2"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "x"}, "LOCAL_RANK is 'x', not a number"),
    ],
)
def test_the_command_line_says_it_in_one_line(
    ebsc, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], line: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("os._exit", sys.exit)  # it ends a process at once that others may wait for
    done = ebsc("run", "--backbone", "identity", "--epochs", "0", "--limit", "40")
    assert done.code == 2
    assert done.err.startswith(f"ebsc: error: the environment variable {line}")
    assert done.err.count("\n") == 1
