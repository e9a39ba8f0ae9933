"""Files from strangers: whatever they declare or contain, reading them is rows or one line, quickly and in
little memory.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

ROWS = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
MAX_SECONDS, MAX_MIB = 2, 300
GIGA = 10**9


def npy(header: str, version: int = 1, data: bytes = b"\0" * 64) -> bytes:
    text = header.encode()
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def declared(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


HEADERS = {
    "far more rows": declared("(1000000000, 10)"),
    "no size of a computer": declared(f"({10**30}, 10)"),
    "a product beyond 64 bits": declared("(4294967296, 4294967296)"),
    "a negative size": declared("(-1, 10)"),
    "two negative sizes": declared("(-4, -4)"),
    "many dimensions": declared(f"({'1,' * 2000})"),
    "a size that is a word": declared("('a', 10)"),
    "no literal": declared("(__import__('os').getpid(), 2)"),
    "nothing": "",
    "no dictionary": "[1, 2]",
    "deep": declared("(" * 400 + ")" * 400),
    "deeper": declared("(" + "-" * 9000 + "1, 2)"),
    "huge integer": declared(f"({'9' * 9000}, 1)"),
    "unclosed": declared("(4, 4")[:-1] + '"""',
    "a warning of Python": declared("(4, 4)", "'\\d'"),
    "an unknown type": declared("(4, 4)", "'<q9'"),
    "a type of no kind": declared("(4, 4)", "[1]"),
    "objects": declared("(4, 4)", "'|O'"),
    "objects in fields": declared("(4,)", "[('a', '|O')]"),
    "nested types": declared("(4, 4)", "[('a', '<f4', (1000000000, 1000000000))]"),
}


def write_bomb(path: Path, **arrays: np.ndarray) -> None:
    np.savez_compressed(path, **arrays)


def write_npz(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def array(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def write_h5(path: Path, change: Callable[[h5py.File], object]) -> None:
    with h5py.File(path, "w") as file:
        change(file)


def one_chunk(file: h5py.File, shape: tuple[int, int], chunks: tuple[int, int]) -> None:
    file.create_dataset("features", shape, "f4", chunks=chunks, compression="gzip")[0, 0] = 1


def big_chunk(file: h5py.File) -> None:
    """A few rows, in a chunk of 400 MB that packs to almost nothing."""
    rows = file.create_dataset("features", (8, 4), "f4", maxshape=(None, None), chunks=(10**7, 10))
    rows.id.write_direct_chunk((0, 0), b"x" * 4096)


def circle(file: h5py.File) -> None:
    group = file.create_group("a/b")
    group["root"], group["a"] = file["/"], file["a"]


def links_in_a_circle(file: h5py.File) -> None:
    file["features"], file["other"] = h5py.SoftLink("/other"), h5py.SoftLink("/features")


def deep(file: h5py.File) -> None:
    group: h5py.Group = file
    for _ in range(3000):
        group = group.create_group("a")


def wide(file: h5py.File) -> None:
    for number in range(3_100):
        file.create_group(f"{number:05}")


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((20, 5), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "features", (20, 5))
    file.create_virtual_dataset("features", layout)


def external_storage(file: h5py.File) -> None:
    file.create_dataset("features", (20, 5), "f4", external=[("secret.bin", 0, 400)])


def external_link(file: h5py.File) -> None:
    file["features"] = h5py.ExternalLink("secret.h5", "features")


def soft_link_outside(file: h5py.File) -> None:
    file["out"], file["features"] = h5py.ExternalLink("secret.h5", "/"), h5py.SoftLink("/out/features")


def long_names(file: h5py.File) -> None:
    file["features"] = np.ones((200_000, 1), np.int8)
    file.create_dataset("ids", (200_000,), "S100000", chunks=(100,), compression="gzip")[:1] = b"x"


H5: dict[str, Callable[[h5py.File], object]] = {
    "declared columns": lambda file: file.create_dataset("features", (10, GIGA), "f4"),
    "declared rows": lambda file: file.create_dataset("features", (GIGA, 10), "f4", chunks=(1000, 10)),
    "declared and small": lambda file: file.create_dataset("features", (20, 5), "f4"),
    "one chunk of many": lambda file: one_chunk(file, (GIGA, 10), (1000, 10)),
    "one chunk of many columns": lambda file: one_chunk(file, (10, GIGA), (1, 1000)),
    "a big chunk": big_chunk,
    "a bomb": lambda file: one_chunk(file, (2 * 10**6, 10), (2 * 10**6, 10)),
    "a circle": circle,
    "links in a circle": links_in_a_circle,
    "deep groups": deep,
    "many groups": wide,
    "virtual": virtual,
    "external storage": external_storage,
    "external link": external_link,
    "soft link outside": soft_link_outside,
    "long names": long_names,
    "no rows": lambda file: file.create_group("features"),
}


def write_parquet(path: Path, **columns: object) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def make_all(folder: Path) -> None:
    """Write every hostile file; each is small."""
    for number, header in enumerate(HEADERS.values()):
        for version in (1, 2):
            (folder / f"{number}-{version}.npy").write_bytes(npy(header, version))
        write_npz(folder / f"header-{number}.npz", features=npy(header))
        write_npz(folder / f"header-of-labels-{number}.npz", features=array(ROWS), labels=npy(header))
    (folder / "version.npy").write_bytes(b"\x93NUMPY\x09\0" + b"\xff" * 64)
    (folder / "length.npy").write_bytes(b"\x93NUMPY\x02\0" + b"\xff" * 64)
    write_bomb(folder / "bomb.npz", features=np.zeros((1000, 25_000), np.float32))
    write_bomb(folder / "bomb-of-rows.npz", features=np.zeros((10_000_000, 1), np.int8))
    write_bomb(folder / "bomb-of-names.npz", features=np.ones((200, 1)), ids=np.zeros(200, "U100000"))
    with zipfile.ZipFile(folder / "no-array.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features", b"\0" * 100_000_000)
    for number, change in enumerate(H5.values()):
        write_h5(folder / f"{number}.h5", change)
    once = pyarrow.DictionaryArray.from_arrays(np.zeros(1_000_000, np.int32), pyarrow.array(["x" * 50_000]))
    write_parquet(folder / "long.parquet", a=np.arange(1_000_000.0), id=once)
    write_parquet(folder / "constant.parquet", a=np.zeros(30_000_000))
    write_parquet(folder / "words.parquet", a=once)
    (folder / "wide.csv").write_text("1," * 1_500_000)
    (folder / "columns.csv").write_text(",".join(f"c{i}" for i in range(200_000)) + "\n1,2\n")
    (folder / "same.csv").write_text("a," * 200_000 + "\n")
    (folder / "empty-entries.csv").write_text("1\n" + "," * 300_000)
    (folder / "null.csv").write_bytes(b"1,2\n\0\0")
    (folder / "utf-32.csv").write_bytes("1,2\n3,4\n".encode("utf-32"))
    (folder / "quoted.csv").write_text('a,b\n1,"' + "2\n" * 200_000)


READ_ALL = """
import json, re, sys, time
from pathlib import Path
from ebsc_core.config.schema import FeaturesChoice
from ebsc_core.data.features.files import read_features
from ebsc_core.utils.errors import EbscError
import pyarrow.parquet

def peak_mib():
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10

start = peak_mib()
for path in sorted(Path(sys.argv[1]).iterdir()):
    began, said = time.process_time(), "read"
    try:
        for block in read_features(FeaturesChoice(path=str(path))).blocks():
            pass
    except EbscError as error:
        said = str(error)
    print(json.dumps([path.name, time.process_time() - began, peak_mib() - start, said]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_hostile_files_are_one_line_quickly_and_in_little_memory(tmp_path: Path) -> None:
    make_all(tmp_path)
    done = subprocess.run([sys.executable, "-c", READ_ALL, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    results = {name: found for name, *found in map(json.loads, done.stdout.splitlines())}
    assert len(results) == len(list(tmp_path.iterdir()))
    for name, (seconds, grown, said) in results.items():
        assert said.count(name) == 1
        assert said.isprintable(), name
        assert len(said) < 600 + len(str(tmp_path)), name
        assert seconds < MAX_SECONDS, name
        assert grown < MAX_MIB, name
