"""Tables of text: what a number is, what the first line is, and what is said of the first wrong entry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebsc_core.config.schema import FeaturesChoice
from ebsc_core.data.features.csv_files import read_csv
from ebsc_core.data.features.source import FeatureSource
from ebsc_core.utils.errors import DataError


def read(folder: Path, content: str | bytes, **options: str) -> FeatureSource:
    path = folder / "a.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_csv(path, FeaturesChoice(path=str(path), **options))


def rows_of(source: FeatureSource) -> list[list[float]]:
    return next(source.blocks()).tolist()


@pytest.mark.parametrize(
    ("entry", "value"),
    [("1e5", 1e5), ("-1E-3", -1e-3), (" 2.5 ", 2.5), ("+3", 3), (".5", 0.5), ("5.", 5), ("007", 7)],
)
def test_what_is_a_number(tmp_path: Path, entry: str, value: float) -> None:
    assert rows_of(read(tmp_path, f"a,b\n0,{entry}\n")) == [[0, np.float32(value)]]


NUMBER = "which is no number; correct it"
POINTS = "which is no number; write decimal points"
WORD = "which is no number; name the column with `features.ids`"
NOT_FINITE = "which is not finite; correct it, or drop such rows"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("", "column 'b' is empty; fill it in, or drop the row or the column"),
        ("  ", "column 'b' is empty"),
        ("1_0", NUMBER),
        ("1_0e5", NUMBER),
        ("1.2.3", NUMBER),
        ('"1,5"', POINTS),
        ("0x10", WORD),
        ("１０", NUMBER),
        ("٣", NUMBER),
        ("1 0", WORD),
        ("cat", WORD),
        ("1e5e5", WORD),
        ("nan", NOT_FINITE),
        ("NaN", NOT_FINITE),
        ("-inf", NOT_FINITE),
        ("Infinity", NOT_FINITE),
        ("1e39", "which is too large for float32"),
    ],
)
@pytest.mark.parametrize("place", ["head", "no head"])
def test_what_is_none_is_named_with_line_column_and_cure(
    tmp_path: Path, entry: str, said: str, place: str
) -> None:
    head, column = ("a,b\n", "b") if place == "head" else ("", "1")
    content = f"{head}1.5,2.5\n\n3.5,{entry}\n4.5,5.5\n"
    with pytest.raises(DataError) as raised:
        read(tmp_path, content)
    line = 4 if head else 3
    assert f"a.csv: line {line}, " in str(raised.value)
    assert said.replace("'b'", f"'{column}'") in str(raised.value)


@pytest.mark.parametrize("first", ["1,,3", "1_0,2,3", '"1,5",2,3', "nan,2,3", "1,2,"])
def test_a_first_line_with_a_wrong_number_is_no_head(tmp_path: Path, first: str) -> None:
    with pytest.raises(DataError, match="line 1, column"):
        read(tmp_path, f"{first}\n4,5,6\n")


@pytest.mark.parametrize("head", ["2024-01,2024-02", "a,b", ",a", ",5", "e,E", "1,b", "a b,0x1"])
def test_a_first_line_with_names_is_a_head(tmp_path: Path, head: str) -> None:
    assert read(tmp_path, f"{head}\n4,5\n6,7\n").shape == (2, 1 if head[0] == "," else 2)


@pytest.mark.parametrize(
    "content", ["a;b\n1,5;2,5\n", "1,5;2,5\n3,5;4,5\n", "1,5\t2,5\n3,5\t4,5\n", "a\tb\n1,5\t2\n"]
)
def test_decimal_commas_are_named(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"line \d, column .* no number; write decimal points, and commas"):
        read(tmp_path, content)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_what_spreadsheets_write_is_read(tmp_path: Path, encoding: str, newline: str, delimiter: str) -> None:
    lines = ["id,größe,b", "é,1,2", "日本,3,4"]
    source = read(tmp_path, newline.join(lines).replace(",", delimiter).encode(encoding))
    assert rows_of(source) == [[1, 2], [3, 4]]
    assert list(source.ids) == ["é", "日本"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_are_named(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(DataError, match=r"line 1 holds null characters, .* save it as UTF-8"):
        read(tmp_path, "a,b\n1,2\n".encode(encoding))


@given(
    rows=st.lists(
        st.tuples(*[st.floats(width=32, allow_nan=False, allow_infinity=False)] * 3), min_size=1, max_size=9
    )
)
def test_numbers_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, ...]]
) -> None:
    text = "a,b,c\n" + "".join(",".join(map(repr, row)) + "\n" for row in rows)
    found = read(tmp_path_factory.mktemp("csv"), text)
    assert np.array_equal(next(found.blocks()).numpy(), np.array(rows, np.float32))
