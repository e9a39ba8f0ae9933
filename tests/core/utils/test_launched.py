"""What a launcher says of the processes that it started."""

from __future__ import annotations

import pytest

from ebsc_core.utils.errors import DeviceError
from ebsc_core.utils.launched import (
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


def test_a_launcher_is_known_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert not is_launched()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert is_launched()


def test_the_command_line_says_it_in_one_line(ebsc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "abc")
    done = ebsc("run", "--backbone", "identity", "--epochs", "0", "--limit", "40")
    assert done.code == 2
    assert done.err.startswith("ebsc: error: the environment variable WORLD_SIZE is 'abc', not a number")
    assert done.err.count("\n") == 1
