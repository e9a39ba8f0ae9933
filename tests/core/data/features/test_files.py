"""Features from files of every kind: the same rows, names and labels; what cannot be used is named."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from ebsc_core.config.schema import FeaturesChoice
from ebsc_core.data.features.files import read_features
from ebsc_core.data.features.hdf5_files import MAX_LINKS
from ebsc_core.data.features.source import FeatureSource
from ebsc_core.data.features.summary import feature_facts
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import DataError

N, D = 25, 6
ROWS = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
LABELS = np.arange(N) % 3
IDS = [f'photos/{i:02d}, "é".png' for i in range(N)]


def write_npy(path: Path) -> None:
    np.save(path, ROWS)


def write_npz(path: Path) -> None:
    np.savez(path, features=ROWS, labels=LABELS, ids=np.array(IDS))


def write_h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["features"], file["labels"] = ROWS, LABELS
        file.create_dataset("ids", data=[name.encode() for name in IDS], dtype=h5py.string_dtype())


def write_lists(path: Path) -> None:
    table = {"id": IDS, "embedding": list(ROWS), "label": LABELS}
    pyarrow.parquet.write_table(pyarrow.table(table), path)


def write_columns(path: Path) -> None:
    table = {"id": IDS} | {f"f{i}": ROWS[:, i] for i in range(D)} | {"label": [str(x) for x in LABELS]}
    pyarrow.parquet.write_table(pyarrow.table(table), path)


def write_csv(path: Path, delimiter: str = ",") -> None:
    quoted = ['"' + name.replace('"', '""') + '"' for name in IDS]
    lines = [delimiter.join(["id", *(f"f{i}" for i in range(D)), "label"])]
    lines += [
        delimiter.join([name, *map(repr, map(float, row)), str(label)])
        for name, row, label in zip(quoted, ROWS, LABELS, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_semicolons(path: Path) -> None:
    write_csv(path, ";")


def read(path: Path, **options: str) -> FeatureSource:
    return read_features(FeaturesChoice(path=str(path), **options))


def rows_of(source: FeatureSource, size: int = 7) -> np.ndarray:
    return torch.cat(list(source.blocks(size))).numpy()


@pytest.mark.parametrize(
    ("ending", "write"),
    [
        (".npz", write_npz),
        (".h5", write_h5),
        (".hdf5", write_h5),
        (".parquet", write_lists),
        (".parquet", write_columns),
        (".csv", write_csv),
        (".CSV", write_semicolons),
    ],
)
def test_rows_names_and_labels_are_read(tmp_path: Path, ending: str, write: Callable[[Path], None]) -> None:
    path = tmp_path / f"features{ending}"
    write(path)
    source = read(path)
    assert source.shape == (N, D)
    np.testing.assert_allclose(rows_of(source), ROWS, rtol=1e-6)
    assert list(source.ids) == IDS
    assert source.named
    assert source.n_classes == 3
    assert source.label_names() == [str(label) for label in LABELS]


def write_group(path: Path, prefix: str = "train/") -> None:
    """Arrays in a group, another group beside it, and labels of something else at the root."""
    arrays = {f"{prefix}features": ROWS, f"{prefix}label": LABELS[:, None], "labels": LABELS[:4]}
    arrays |= {f"{prefix}ids": np.array([name.encode() for name in IDS]), "test/features": ROWS[:4]}
    if path.suffix == ".npz":
        np.savez(path, **arrays)  # type: ignore[arg-type]
    else:
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[name] = values


@pytest.mark.parametrize("ending", [".npz", ".h5"])
@pytest.mark.parametrize("prefix", ["train/", "a/very/deep/place/"])
def test_arrays_in_groups_are_named_by_their_path(tmp_path: Path, ending: str, prefix: str) -> None:
    """Their labels and names are those beside them. Labels may be a column."""
    path = tmp_path / f"a{ending}"
    write_group(path, prefix)
    source = read(path, array=f"{prefix}features")
    assert np.array_equal(rows_of(source), ROWS)
    assert list(source.ids) == IDS
    assert source.label_names() == [str(label) for label in LABELS]
    assert read(path, array="test/features").labels is None
    assert read(path, array="test/features", labels="labels").n_classes == 3
    for options in ({}, {"array": "train"}, {"array": f"{prefix}x"}):
        with pytest.raises(DataError, match=f"'?{prefix}features'?.*`features.array`"):
            read(path, **options)


def test_in_h5_links_within_the_file_are_followed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data/rows"], file["data/label"] = ROWS, LABELS
        file["features"], file["again"] = h5py.SoftLink("data/rows"), h5py.SoftLink("/features")
        file["hard"] = file["data"]
    for name in (None, "again", "/hard/rows", "data/rows"):
        options = {} if name is None else {"array": name}
        assert np.array_equal(rows_of(read(tmp_path / "a.h5", **options)), ROWS)


def test_an_h5_of_very_many_entries_takes_a_name(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number in range(MAX_LINKS):
            file.create_group(f"0/{number}")
        file["z/features"], file["z/labels"] = ROWS, LABELS
    with pytest.raises(DataError, match=r"more than .* entries; name the right one with `features.array`"):
        read(tmp_path / "a.h5")
    assert read(tmp_path / "a.h5", array="z/features").n_classes == 3
    with pytest.raises(DataError, match="has no 'z/x'"):
        read(tmp_path / "a.h5", array="z/x")


@pytest.mark.parametrize("option", ["ids", "labels"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\ud800", "holds a surrogate"),
        ("a\udc7fb", "holds a surrogate"),
        ("a\0b", "holds a null character"),
        ("x" * 200_000, "has 200,000 characters; give at most 65,536"),
    ],
)
def test_a_name_or_label_that_no_run_can_write_and_read_is_refused(
    tmp_path: Path, option: str, text: str, said: str
) -> None:
    given = {"labels": np.array(["a"] * N), "ids": np.array(IDS)}
    np.savez(tmp_path / "x.npz", features=ROWS, **given | {option: np.array([*given[option][:-1], text])})
    with pytest.raises(DataError, match=rf"x\.npz: features\.{option}, row 24.* {said}") as error:
        read(tmp_path / "x.npz")
    assert len(str(error.value)) < 500
    str(error.value).encode()


@pytest.mark.parametrize("text", ["\udcff.png", '"' * 65_536, "\r\n,;", "語" * 65_536])
def test_any_other_name_or_label_is_that_of_the_run(ebsc, tmp_path: Path, text: str) -> None:
    labels = [text if number % 2 else "other" for number in range(N)]
    np.savez(tmp_path / "x.npz", features=ROWS, ids=np.array([*IDS[:-1], text]), labels=np.array(labels))
    flags = ("--n-clusters", "2", "--coefficients", "knn", "-q", "--out", "run")
    assert ebsc("cluster", "x.npz", *flags).code == 0
    found = SavedRun(tmp_path / "run").assignments
    assert found.ids[-1] == text
    assert found.labels == labels


def test_an_array_alone_has_positions_for_names(tmp_path: Path) -> None:
    write_npy(tmp_path / "a.npy")
    source = read(tmp_path / "a.npy")
    assert list(source.ids) == [str(i) for i in range(N)]
    assert not source.named
    assert source.n_classes is None
    np.testing.assert_array_equal(rows_of(source), ROWS)


def test_a_csv_of_numbers_needs_no_head(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "a.csv", ROWS, delimiter=",")
    np.testing.assert_allclose(rows_of(read(tmp_path / "a.csv")), ROWS, rtol=1e-6)


def test_a_head_that_counts_is_no_row(tmp_path: Path) -> None:
    lines = [",".join(map(str, range(D))), *(",".join(map(str, row)) for row in ROWS)]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    found = read(tmp_path / "a.csv")
    assert np.array_equal(rows_of(found), ROWS)
    assert found.columns == f"{D} of features ('0' to '{D - 1}')"


@pytest.mark.parametrize("named", [None, "path"])
def test_the_index_of_a_parquet_table_is_no_feature(tmp_path: Path, named: str | None) -> None:
    """As pandas writes a table whose index is not 0, 1, 2, …"""
    index = named or "__index_level_0__"
    names: list[object] = [f"{number}.png" for number in range(N)] if named else list(range(N, 0, -1))
    table = pyarrow.table({f"c{i}": ROWS[:, i] for i in range(D)} | {index: names})
    noted = json.dumps({"index_columns": [index], "columns": [], "column_indexes": []})
    pyarrow.parquet.write_table(table.replace_schema_metadata({"pandas": noted}), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert np.array_equal(rows_of(found), ROWS)
    assert found.ids == [str(name) for name in names]
    assert found.columns == f"{D} of features ('c0' to 'c{D - 1}'); {index!r}: names of rows"


def test_an_index_beside_names_is_not_used_and_said(tmp_path: Path) -> None:
    table = pyarrow.table(
        {"c0": ROWS[:, 0], "path": [str(i) for i in range(N)], "__index_level_0__": range(N)}
    )
    noted = json.dumps({"index_columns": ["__index_level_0__"], "columns": [], "column_indexes": []})
    pyarrow.parquet.write_table(table.replace_schema_metadata({"pandas": noted}), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert rows_of(found).shape == (N, 1)
    assert found.columns == (
        "1 of features ('c0'); 'path': names of rows; '__index_level_0__': an index, not used"
    )


def test_a_csv_without_a_head_may_have_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("cat.png,0.5\ndog.png,0.25\n")
    source = read(tmp_path / "a.csv", ids="0")
    assert list(source.ids) == ["cat.png", "dog.png"]
    assert rows_of(source).tolist() == [[0.5], [0.25]]


def test_columns_may_have_numbers_for_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("0,1,label\n0.5,1,x\n")
    assert rows_of(read(tmp_path / "a.csv")).tolist() == [[0.5, 1]]


@pytest.mark.parametrize("index", ["", "Unnamed: 0", "index", "level_0"])
@pytest.mark.parametrize(("head", "names"), [(",a,b", ["7", "8"]), (",id,b", ["1", "3"])])
def test_the_index_of_a_table_is_no_feature(tmp_path: Path, index: str, head: str, names: list[str]) -> None:
    (tmp_path / "x.csv").write_text(f"{index}{head}\n7,1,2\n8,3,4\n")
    source = read(tmp_path / "x.csv")
    assert list(source.ids) == names
    assert rows_of(source)[:, -1].tolist() == [2, 4]
    assert source.shape[1] == head.count(",") - head.count("id")


def test_what_is_no_array_or_too_long_an_entry_is_one_line(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("features.txt", "no array")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = h5py.Empty("f4")
    (tmp_path / "x.csv").write_text("a,b\n1," + "2" * 200_000)
    for name in ("x.npz", "x.h5", "x.csv"):
        with pytest.raises(DataError, match=name):
            read(tmp_path / name)


@pytest.mark.parametrize("scale", [1e-30, 1e20, 1e30])
def test_rows_may_have_any_length_that_float32_has(tmp_path: Path, scale: float) -> None:
    """Their squares are no float32; the direction of each row is what counts."""
    rows = ROWS * np.float32(scale)
    np.save(tmp_path / "x.npy", rows)
    found = rows_of(read(tmp_path / "x.npy"))
    assert np.array_equal(found, rows)
    facts = feature_facts(FeaturesChoice(path=str(tmp_path / "x.npy")))
    assert facts["length of a row"].startswith(f"{np.linalg.norm(rows.astype(float), axis=1).mean():.4g} ±")
    np.save(tmp_path / "plain.npy", ROWS)
    plain = feature_facts(FeaturesChoice(path=str(tmp_path / "plain.npy")))
    assert facts["effective rank"] == plain["effective rank"]


def test_in_h5_what_is_left_are_the_features(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a_labels"], file["z"] = LABELS, ROWS
    np.testing.assert_array_equal(rows_of(read(tmp_path / "a.h5", labels="a_labels")), ROWS)


@pytest.mark.parametrize("dtype", ["f2", "f8", ">f4", "i4", "u1", "?"])
def test_any_real_numbers_will_do(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "a.npy", ROWS.astype(dtype) if dtype != "u1" else np.abs(ROWS).astype(dtype))
    assert rows_of(read(tmp_path / "a.npy")).dtype == np.float32


def test_columns_and_arrays_can_be_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", emb=ROWS, features=ROWS[:, :2], kind=LABELS, who=np.array(IDS))
    source = read(tmp_path / "a.npz", array="emb", labels="kind", ids="who")
    assert (source.shape, source.n_classes, list(source.ids)) == ((N, D), 3, IDS)


def with_bad(value: float) -> np.ndarray:
    rows = ROWS.astype(np.float64)
    rows[17, 3] = value
    return rows


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_rows_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    np.save(tmp_path / "a.npy", with_bad(value))
    with pytest.raises(DataError, match=r"row 17 \('17'\) holds NaN, infinity"):
        rows_of(read(tmp_path / "a.npy"))
    np.savetxt(tmp_path / "a.csv", with_bad(value), delimiter=",")
    said = "which is too large for float32" if np.isfinite(value) else "which is not finite"
    with pytest.raises(DataError, match=rf"line 18, column '3' holds '.*', {said}"):
        read(tmp_path / "a.csv")


def saved(path: Path, array: object, **others: object) -> Path:
    if path.suffix == ".npy":
        np.save(path, array)  # type: ignore[arg-type]
    else:
        np.savez(path, features=array, **others)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("name", "content", "options", "said"),
    [
        ("a.npy", ROWS[0], {}, "shape"),
        ("a.npy", ROWS[None], {}, "shape"),
        ("a.npy", ROWS.astype(complex), {}, "complex"),
        ("a.npy", ROWS[:0], {}, "no features"),
        ("a.npy", ROWS[:, :0], {}, "no features"),
        ("a.npy", np.array([[object()]]), {}, "not a readable"),
        ("a.npy", ROWS, {"array": "x"}, "one array"),
        ("a.npz", ROWS, {"array": "x"}, "`features.array`"),
        ("a.npz", ROWS, {"labels": "y"}, "`features.labels`"),
        ("a.txt", b"1,2", {}, "are read from .npy"),
        ("a.npy", b"\x93NUMPY", {}, "not a readable"),
        ("a.npz", b"PK\3\4", {}, "not a readable"),
        ("a.h5", b"HDF", {}, "not a readable"),
        ("a.parquet", b"PAR1", {}, "not a readable"),
        ("a.csv", b"", {}, "no columns|no features"),
        ("a.csv", b"a,b\n", {}, "no features"),
        ("a.csv", b"a,b\n1,2\n1\n", {}, "line 3 has 1 entries, not 2"),
        ("a.csv", b"a,b\n1,2\n1,x\n", {}, "line 3, column 'b' holds 'x', which is no number"),
        ("a.csv", b"id,label\n1,2\n", {}, "no columns of features"),
        ("a.csv", b"a,a\n1,2\n", {}, "two columns called 'a'"),
        ("a.csv", b"cat.png,0.5\ndog.png,0.25\n", {}, "column '0'"),
        ("a.csv", b"a,b\n1,2\n", {"array": "a"}, "columns"),
        ("a.csv", b"\xff\xfe\x00", {}, "a.csv"),
    ],
)
def test_what_cannot_be_used_is_named(
    tmp_path: Path, name: str, content: object, options: dict[str, str], said: str
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        saved(path, content)
    with pytest.raises(DataError, match=said) as raised:
        rows_of(read(path, **options))
    assert "\n" not in str(raised.value)


def test_labels_and_names_are_one_per_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"features\.labels has shape"):
        read(saved(tmp_path / "a.npz", ROWS, labels=LABELS[:-1]))
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "none.npy")


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (["x", "y"], "column 'a'"),
        ([["x"], ["y"]], "column 'a'"),
        ([[1.0], [1.0, 2.0]], "must have one length"),
        ([[1.0], None], "must have one length"),
        ([[], []], "column 'a'"),
        ([1.0, None], "row 1"),
    ],
)
def test_a_parquet_of_other_than_numbers_is_named(tmp_path: Path, column: list[object], said: str) -> None:
    table = pyarrow.table({"a": column, "b": [1.0, 2.0]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=said):
        rows_of(read(tmp_path / "a.parquet"))
