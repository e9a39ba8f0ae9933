"""TOML from strangers: deep, long or with huge numbers is one line, quickly and in little memory."""

from __future__ import annotations

import re
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from ebsc_core.benchmark.suite import load_suite
from ebsc_core.config.loading import load_config, parse_settings
from ebsc_core.config.toml import MAX_DEPTH, MAX_LENGTH, parse_toml, read_toml
from ebsc_core.utils.errors import ConfigError

MAX_SECONDS, MAX_MIB = 2, 300
FILLED = MAX_LENGTH - 100
LONG_KEY = ".".join("a" * 30_000)

HOSTILE = {
    "deep lists": "a = " + "[" * 1000 + "]" * 1000,
    "deeper lists": "a = " + "[" * 100_000,
    "lists that Python still reads": "a = " + "[" * 150 + "]" * 150,
    "deep tables": "a = " + "{a = " * 300 + "1" + "}" * 300,
    "deep headers": "".join(f"[{'.'.join('a' * depth)}]\n" for depth in range(1, 200)),
    "a key of many parts": f"{LONG_KEY} = 1",
    "in a header": f"[{LONG_KEY}]\nx = 1",
    "in a list of tables": f"[[{LONG_KEY}]]\nx = 1",
    "in a table": f"a = {{{LONG_KEY} = 1}}",
    "of quoted parts": '"". ' * 30_000 + 'a = 1\n""=1',
    "of parts quoted otherwise": "'.' . " * 20_000 + "a = 1",
    "after a comment": f'# "\n{LONG_KEY} = 1 # "',
    "after a string": f'x = "\\""\n{LONG_KEY} = "a"',
    "after a string of lines": f'x = """\\""""\n{LONG_KEY} = "a"',
    "after a string with quotes at its end": f'x = {{y = """a"""""", {LONG_KEY} = "c"}}',
    "beside a string with a quote at its end": f'x = {{y = """a"""", {LONG_KEY} = "c"}}',
    "beside a literal string": f"x = {{y = '''a'''', {LONG_KEY} = 'c'}}",
    "a huge integer": f"seed = {'1' * 200_000}",
    "a huge integer of base 16": f"seed = 0x{'f' * 200_000}",
    "a huge integer in a list": f"[data]\nx = [[0x{'f' * 200_000}]]",
    "1,001 digits": f"[data]\nx = 1{'0' * 1000}",
    "a huge float": f"seed = {'1' * 200_000}.0",
    "a huge exponent": "seed = 1e999999999",
    "an enormous key": f"{'a' * FILLED} = 1",
    "an enormous string": f'seed = "{"a" * FILLED}"',
    "an enormous setting": f"train.{'a' * FILLED} = 1",
    "an enormous list": f"seed = [{'1,' * (FILLED // 2 - 20)}]",
    "many keys": "\n".join(f"k{i} = 1" for i in range(10_000)),
    "many tables": "[[a]]\n" * (FILLED // 6),
    "escapes": 'a = "' + "\\" * FILLED,
    "quotes": '"\\"' * (FILLED // 3),
    "triple quotes": '"""\\"' * (FILLED // 5),
    "single quotes": "'" * FILLED,
    "dots": "." * FILLED,
    "brackets": "[" + "]" * FILLED,
    "spaces": "a" + " " * FILLED + "b = 1",
    "too long": "# " + "a" * MAX_LENGTH,
    "null": "a = \0",
    "control": "a = '\x1b[2J'",
}


def refused(work: Callable[[], object]) -> str:
    """The message, after checks of its form, of the time and of the memory that it took."""
    before, began = memory_mib("VmRSS"), time.process_time()
    if before:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    with pytest.raises(ConfigError) as raised:
        work()
    assert time.process_time() - began < MAX_SECONDS
    assert memory_mib("VmHWM") - before < MAX_MIB
    said = str(raised.value)
    assert said.isprintable()
    assert len(said) < 1000
    return said


def memory_mib(name: str) -> int:
    """The memory of this process now, or its peak; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    return int(re.findall(rf"{name}:\s*(\d+)", status.read_text())[0]) >> 10 if status.exists() else 0


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_is_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(HOSTILE[name])
    refused(lambda: load_config(path))
    suite = f'title = "T"\n[data.x]\ndata.name = "digits"\n[rows.x]\n[settings]\n{HOSTILE[name]}'
    path.write_text(suite)
    refused(lambda: [cell.config for cell in load_suite(path).cells()])


def test_a_suite_with_a_mistake_and_brackets_is_one_line(tmp_path: Path) -> None:
    """The line of a mistake is looked for in the file, whatever it holds."""
    from ebsc_core.plugins.registry import Registry

    path = tmp_path / "x.toml"
    odd = "[" + "]" * 40_000 + "x\n" + " " * 40_000 + "x = 1\n" + "[" * 40_000
    path.write_text(f'about = """\n{odd}"""\ntitle = "T"\n[data.x]\n[rows.x]\ntrain.epoch = 1\n')
    assert "x.toml:8: row 'x': unknown option" in refused(lambda: load_suite(path).check(Registry()))


@pytest.mark.parametrize(
    "setting",
    [
        "a." * 1000 + "b=1",
        "a" * 100_000,
        f"seed={'1' * 100_000}",
        f"seed=0x{'f' * 100_000}",
        f"train.epochs={'[' * 5000}",
        f"train.epochs={'[' * 100}{']' * 100}",
        f"train={{{LONG_KEY}=1}}",
        f"train.{'x' * 100_000}=1",
    ],
    ids=range(8),
)
def test_a_setting_is_one_line(setting: str) -> None:
    refused(lambda: load_config(settings=[setting]))


def test_a_number_of_thousands_of_digits_from_python_is_one_line() -> None:
    for value in (10**5000, -(10**5000), [10**5000]):
        refused(lambda value=value: load_config(flags={"seed": value}))
    refused(lambda: load_config(flags={"a." * 1000 + "b": 1}))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such device")
def test_a_file_without_end_is_one_line() -> None:
    assert "too large" in refused(lambda: load_config(Path("/dev/zero")))


VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.\"'#\\ é", max_size=5), inner, max_size=3)
    ),
    max_leaves=20,
)


@given(tables=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES, max_size=4))
def test_any_other_toml_is_what_python_reads(tables: dict[str, Any]) -> None:
    text = tomli_w.dumps(tables)
    assert parse_toml(text) == tomllib.loads(text)


def test_dots_in_strings_and_numbers_are_none_of_a_key() -> None:
    dots = "a" + ".a" * 100
    text = f'about = """\n{dots}"""\nx = "{dots}" # {dots}\ny = [{"1.5, " * 100}]\n' + "a.b = 1.5\n"
    assert parse_toml(text)["y"] == [1.5] * 100
    deepest = ".".join("a" * (MAX_DEPTH - 2))
    assert parse_toml(f"{deepest} = 1")
    assert parse_settings([f"{deepest}=1"])


def test_a_file_of_the_size_of_a_large_suite_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("".join(f"[rows.r{i}]\ntop_k = {i}\n" for i in range(3000)))
    assert len(read_toml(tmp_path / "x.toml")["rows"]) == 3000
