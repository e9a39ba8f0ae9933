"""Give commands the files of strangers, and find out whether they refuse them, soon and without a fuss."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from support.reliability import hostile_files as files
from support.reliability.commands import Commands, Request
from support.reliability.contents import contents, differing
from support.reliability.kills import CLUSTERED, TINY

ONE_LINE, FINE = "one line", "fine"
TRACEBACK, HANG, FAT, OUTSIDE, ACCEPTED = (
    "traceback",
    "hang over 10 s",
    "over 300 MiB",
    "outside its folder",
    "accepted",
)
SECONDS, MOST_MIB = 10.0, 300

Build = Callable[[Path, Path, random.Random], object]
"""Writes the input: into the first folder, perhaps from a finished run, the second, with random numbers."""


@dataclass(frozen=True)
class Hostile:
    """Describe an input and the command that reads it."""

    words: tuple[str, ...]
    build: Build
    may_be_fine: bool = False
    """Whether the command may succeed, since the input is only odd."""


def _cluster(name: str, build: Callable[..., object], *rest: object, fine: bool = False) -> Hostile:
    words = ("cluster", name, "--n-clusters", "2", *TINY, "--no-report", "--out", "new")
    return Hostile(words, lambda here, run, rng: build(here / name, *rest), fine)


def _images(name: str, build: Callable[..., object], *rest: object, fine: bool = False, more=()) -> Hostile:
    words = ("run", "--data", name, "--backbone", "identity", "--cache", "none", "--n-clusters", "2")
    words = (*words, *TINY, "--no-report", "--set", "data.size=8", "--out", "new", *more)
    return Hostile(words, lambda here, run, rng: build(here / name, *rest), fine)


def _searched(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words of `ebsc duplicates` for the images of a run."""
    return (
        words[words.index("--data") + 1],
        *(word for word in words if word == "--skip-bad-images"),
        "--set",
        "data.size=8",
    )


def _text(*words: str, text: Callable[[], str]) -> Hostile:
    return Hostile(words, lambda here, run, rng: (here / "x.toml").write_text(text(), "latin-1"))


def _setting(text: str) -> Hostile:
    return Hostile(("run", "--set", text, "--out", "new"), lambda here, run, rng: None)


def _run(*words: str, name: str, content: bytes | str | None, fine: bool = False) -> Hostile:
    return Hostile(words, lambda here, run, rng: files.run_directory(run, here / "r", name, content), fine)


def _link(*words: str, name: str) -> Hostile:
    def build(here: Path, run: Path, rng: random.Random) -> None:
        files.linked(run, here / "r", name, here.parent / "outside/secret")

    return Hostile(words, build, may_be_fine=True)


CONFIG = ("run", "--config", "x.toml", "--out", "new")
SUITE = ("benchmark", "x.toml", "--out", "new")
PREDICT = ("predict", "r", "later.npy", "-o", "out.csv")
ENDINGS = (".npy", ".npz", ".h5", ".csv", ".parquet", ".zip")
DIGITS = "1" * 200_000
NAMES = {
    "new line": "a\nb.png",
    "no UTF-8": "\udcff\udcfe.png",
    "long": "x" * 246 + ".png",
    "right to left": "\u202egnp.\u05d0.png",
    "escape": "\x1b[2J\x1b]0;x\x07.png",
    "markup": "[red]<script>alert(1)</script>".replace("/", "") + ".png",
    "formula": "=1+1;.png",
}
LIES = {
    "rows": "(1000000000000, 8)",
    "columns": "(8, 1000000000000)",
    "overflow": "(4611686018427387904, 4611686018427387904)",
    "negative": "(-8, 8)",
    "no number": "('a', 8)",
    "expression": "(__import__('os').system('touch /tmp/ebsc-was-here'), 8)",
    "deep": files.deep(5000, "(", ")"),
    "digits": f"({DIGITS}, 8)",
    "true": "(True, 8)",
}
ROWS: dict[str, Hostile] = {
    **{f"npy of {name}": _cluster("x.npy", files.npy_of, lie) for name, lie in LIES.items()},
    "npy of objects": _cluster("x.npy", files.npy_of, "(8, 8)", "|O"),
    "npy of wide items": _cluster("x.npy", files.npy_of, "(8, 8)", "|V2000000000"),
    "npy without a header": _cluster("x.npy", files.npy, b"\xff\xfe\x00"),
    "npy with a long header": _cluster("x.npy", files.npy, b"{", b"", 2**32 - 1),
    "npz bomb": _cluster("x.npz", files.npz_of_zeros, "features", (files.GIB // 32, 8), "<f4"),
    "npz with more": _cluster("x.npz", files.zip_of, {"features.npy": b"\x93NUMPY", "../../x.npy": b""}),
    "zip as npz": _cluster("x.npz", files.zip_of, {f"{i}.npy": b"" for i in range(20_000)}),
    **{
        f"hdf5 {kind}": _cluster("x.h5", files.hdf5, kind)
        for kind in (
            *("rows", "columns", "compressed", "external link", "external data", "virtual", "loop"),
            *("group", "text", "records", "number", "many"),
        )
    },
    "csv of one cell": _cluster("x.csv", lambda path: path.write_text("1" * 20_000_000)),
    "csv of columns": _cluster("x.csv", lambda path: path.write_text("1," * 2_000_000 + "1\n")),
    "csv of a quote": _cluster("x.csv", lambda path: path.write_text('"' + "1,2\n" * 100_000)),
    "csv of bytes": _cluster("x.csv", lambda path: path.write_bytes(bytes(range(256)) * 100)),
    "csv of digits": _cluster("x.csv", lambda path: path.write_text(f"{DIGITS},2\n3,4\n")),
    "parquet of nothing": _cluster(
        "x.parquet", lambda path: path.write_bytes(b"PAR1" + b"\xff" * 64 + b"PAR1")
    ),
    **{f"empty {end}": _cluster(f"x{end}", Path.touch) for end in ENDINGS},
    **{f"folder {end}": _cluster(f"x{end}", Path.mkdir) for end in ENDINGS},
    **{f"pipe {end}": _cluster(f"x{end}", files.pipe) for end in ENDINGS},
    **{
        f"{device} {end}": _cluster(f"x{end}", Path.symlink_to, f"/dev/{device}")
        for device, end in (("zero", ".npy"), ("zero", ".csv"), ("urandom", ".h5"), ("zero", ".zip"))
    },
    "link to itself": _cluster("x.npy", Path.symlink_to, "x.npy"),
    "long name": _cluster(f"{'x' * 300}.npy", lambda path: None),
}
IMAGES: dict[str, Hostile] = {
    "huge image": _images("d", files.photos, {"x.png": files.huge_png}),
    "huge image under another name": _images("d", files.photos, {"x.jpg": files.huge_png}),
    "huge header": _images("d", files.photos, {"x.bmp": files.huge_bmp}),
    "huge header of less": _images("d", files.photos, {"x.bmp": lambda: files.huge_bmp(9_000, 9_000)}),
    "huge image skipped": _images(
        "d", files.photos, {"x.png": files.huge_png}, fine=True, more=("--skip-bad-images",)
    ),
    "empty image": _images("d", files.photos, {"x.png": bytes}),
    **{
        f"name with {kind}": _images("d", files.photos, {name: files.picture}, fine=True)
        for kind, name in NAMES.items()
    },
    "pipe as image": _images("d", lambda d: (files.photos(d, {}), files.pipe(d / "x.png"))),
    "device as image": _images("d", lambda d: (files.photos(d, {}), (d / "x.png").symlink_to("/dev/zero"))),
    "folder in itself": _images("d", lambda d: (files.photos(d, {}), (d / "d").symlink_to(".")), fine=True),
    "image that is a folder": _images("d", lambda d: (files.photos(d, {}), (d / "x.png").mkdir()), fine=True),
    "link to nothing": _images("d", lambda d: (files.photos(d, {}), (d / "x.png").symlink_to("no"))),
    "zip bomb": _images("x.zip", files.zeros, "a.png", files.GIB),
    "zip bomb with a head": _images("x.zip", files.zeros, "a.png", files.GIB, files.picture()),
    "zip of many": _images("x.zip", files.zip_of, {f"{i}.png": b"x" for i in range(100_000)}),
    "zip of many texts": _images("x.zip", files.zip_of, {f"{i}.txt": b"x" for i in range(100_000)}),
    "zip in a zip": _images("x.zip", files.zip_of, {"a.zip": b"PK", "b.png": b"PK\3\4"}),
    "zip that leads out": _images(
        "x.zip", files.zip_of, {f"../../outside/{i}.png": files.picture(8 + i) for i in range(6)}, fine=True
    ),
    "npz bomb of images": _images("x.npz", files.npz_of_zeros, "images", (files.GIB // 64, 8, 8), "|u1"),
    "npz of lies": _images("x.npz", files.zip_of, {"images.npy": b"\x93NUMPY\x01\x00\x76\x00{" + b" " * 117}),
    "npz that holds less": _images(
        "x.npz",
        lambda path: (
            files.npy_of(path.with_name("i"), "(1000000, 8, 8)", "|u1"),
            files.zip_of(path, {"images.npy": path.with_name("i").read_bytes()}),
        ),
        more=("--skip-bad-images",),
    ),
}
IMAGES |= {
    f"duplicates with {name}": Hostile(
        ("duplicates", *_searched(case.words), "-o", "d.csv"), case.build, case.may_be_fine
    )
    for name, case in list(IMAGES.items())
}
TEXTS: dict[str, Hostile] = {
    **{
        f"toml {kind} as {words[0]}": _text(*words, text=text)
        for words in (CONFIG, SUITE)
        for kind, text in {
            "deep": lambda: f"seed = {files.deep(1000)}",
            "deeper": lambda: f"seed = {files.deep(100_000)}",
            "deep tables": lambda: f"seed = {files.deep(1000, '{a=', '}').replace('{a=}', '{}')}",
            "digits": lambda: f"seed = {DIGITS}",
            "long key": lambda: f"{'a' * 20_000_000} = 1",
            "dots": lambda: f"{'.'.join('a' * 1000)} = 1",
            "many keys": lambda: "".join(f"k{i} = 1\n" for i in range(200_000)),
            "bytes": lambda: "\xff\xfe\x00seed",
            "long": lambda: "# x\n" * 5_000_000,
        }.items()
    },
    "suite of seeds": _text(
        *SUITE, text=lambda: f"title='t'\nseeds={[*range(100_000)]}\n[data.d]\ndata.name='digits'\n[rows.a]\n"
    ),
    "pipe as config": Hostile(CONFIG, lambda here, run, rng: files.pipe(here / "x.toml")),
    "device as config": Hostile(CONFIG, lambda here, run, rng: (here / "x.toml").symlink_to("/dev/zero")),
    "pipe as suite": Hostile(SUITE, lambda here, run, rng: files.pipe(here / "x.toml")),
    "setting of dots": _setting(f"{'.'.join('a' * 1000)}=1"),
    "setting of more dots": _setting(f"{'.'.join('a' * 50_000)}=1"),
    "deep setting": _setting(f"seed={files.deep(1000)}"),
    "setting of digits": _setting(f"seed={DIGITS}"),
    "long setting": _setting(f"data.name={'x' * 100_000}"),
}
DEEP, NUMBER = files.deep(100_000), "1" * 5000
STRANGERS: dict[str, Hostile] = {
    **{
        f"{words[0]} of {kind} {name}": _run(*words, name=name, content=content)
        for name, kind, content in (
            ("metrics.json", "deep", DEEP),
            ("metrics.json", "number in", f'{{"images": {NUMBER}}}'),
            ("metrics.json", "empty", ""),
            ("run.toml", "deep", f"seed = {files.deep(1000)}"),
            ("run.toml", "digits in", f"seed = {DIGITS}"),
            ("assignments.csv", "no", "image,cluster,confidence\n"),
            ("assignments.csv", "far clusters in", f"image,cluster,confidence\n0,{NUMBER},1\n"),
        )
        for words in (("report", "r"), ("compare", "r", "r"), PREDICT)
        if not (words is PREDICT and name == "metrics.json")
    },
    "runs of deep metrics": _run("runs", ".", name="metrics.json", content=DEEP, fine=True),
    "run of a device": _run("report", "r", name="run.toml", content='data.name = "/dev/zero"', fine=True),
    **{
        f"weights of {kind}": _run(*PREDICT, name="checkpoints/coefficients.safetensors", content=content)
        for kind, content in {
            "a long header": files.safetensors(2**63),
            "a deep header": files.safetensors(0) + b"",
            "bytes": b"\x80" * 1000,
        }.items()
    },
    **{
        f"{words[0]} of a link as {name}": _link(*words, name=name)
        for words, name in (
            (("report", "r"), "report.html"),
            (("report", "r"), "metrics.json"),
            (("report", "r"), "assignments.csv"),
            (PREDICT, "features.h5"),
            (PREDICT, "run.toml"),
        )
    },
}


def _random(words: tuple[str, ...], name: str, write: Callable[[Path, random.Random], object]) -> Hostile:
    return Hostile(words, lambda here, run, rng: write(here / name, rng), may_be_fine=True)


RANDOM: dict[str, Hostile] = {
    "random npy": _random(_cluster("x.npy", Path.touch).words, "x.npy", files.random_npy),
    "random toml": _random(
        CONFIG,
        "x.toml",
        lambda path, rng: path.write_text(files.random_text(rng, "[]{}=.,\"'\n01eE+-_ tfruaseod#", 400)),
    ),
    "random csv": _random(
        _cluster("x.csv", Path.touch).words,
        "x.csv",
        lambda path, rng: path.write_text(files.random_text(rng, "0123456789.,;\n\"'-+eE \t", 400)),
    ),
}
HOSTILE = ROWS | IMAGES | TEXTS | STRANGERS | RANDOM


@dataclass(frozen=True)
class Verdict:
    """Say what a command made of a hostile input."""

    what: str
    detail: str = ""


class Gate:
    """Hold a folder in which commands meet hostile inputs, and one beside it that they must not touch."""

    def __init__(self, commands: Commands, folder: Path) -> None:
        self.commands, self.folder = commands, folder
        self.run, self.here, self.outside = (folder / name for name in ("run", "here", "outside"))
        self.outside.mkdir()
        (self.outside / "secret").write_text("secret")
        with h5py.File(self.outside / "secret.h5", "w") as file:
            file["features"] = np.eye(8, dtype=np.float32)
        np.save(folder / "rows.npy", np.eye(30, 8, dtype=np.float32) + np.arange(30)[:, None] % 3)
        ended = commands.run(Request((*CLUSTERED[:-1], "run"), str(folder)))
        assert ended.code == 0, ended
        self.untouched = contents(self.outside)

    def meet(self, name: str, rng: random.Random) -> Verdict:
        """Build the input of this name and run its command."""
        case = HOSTILE[name]
        shutil.rmtree(self.here, ignore_errors=True)
        self.here.mkdir()
        shutil.copy(self.folder / "rows.npy", self.here / "later.npy")
        case.build(self.here, self.run, rng)
        before = self._names()
        environment = {"EBSC_CACHE_DIR": str(self.folder / "cache")}
        ended = self.commands.run(Request(case.words, str(self.here), "", environment, SECONDS))
        if ended.hung:
            return Verdict(HANG, str(ended))
        if "Traceback" in ended.err or ended.code < 0:
            return Verdict(TRACEBACK, str(ended))
        if ended.above_start_mib > MOST_MIB:
            return Verdict(FAT, f"{ended.above_start_mib:.0f} MiB; {ended}")
        if differing(contents(self.outside), self.untouched):
            return Verdict(OUTSIDE, str(ended))
        if ended.code == 0:
            return Verdict(FINE) if case.may_be_fine else Verdict(ACCEPTED, str(ended))
        if ended.line is None or self._names() != before:
            return Verdict(TRACEBACK, f"not one line, or files left: {ended}")
        return Verdict(ONE_LINE)

    def _names(self) -> set[str]:
        """Return the paths of all files and folders that are there."""
        return {f"{base}/{name}" for base, folders, names in os.walk(self.here) for name in folders + names}
