"""Damage files of runs and inputs, and find out whether a command then says so, or is right nevertheless."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tomli_w
from PIL import Image

from support.reliability.commands import Commands, Ended, Request
from support.reliability.contents import contents, differing
from support.reliability.kills import CLUSTERED, PIXELS, TINY, TRAINED

REFUSED, RIGHT, WRONG = "refused", "right", "silently different"
# What no command may do with a damaged file.
TRACEBACK, HANG = "traceback", "hang"
SECONDS = 20.0
# These files hold the warnings of a run.
RECORDS = ("metrics.json", "training.json", "report.html")

Words = tuple[str, ...]
RUN_READERS: tuple[Words, ...] = (
    ("predict", "run", "digits", "-o", "out.csv"),
    ("report", "run"),
    ("compare", "run", "other"),
    ("runs", "."),
    ("doctor", "run"),
    ("name", "run"),
    ("export", "run", "--table", "table.csv", "--memberships"),
    ("duplicates", "run", "--quiet", "-o", "out.csv"),
    ("outliers", "run", "-o", "out.csv"),
    ("similar", "run", "68", "--quiet", "-o", "out.csv"),
)
ROWS_READERS: tuple[Words, ...] = (
    ("predict", "rows-run", "later.npy", "-o", "out.csv"),
    ("report", "rows-run"),
    ("duplicates", "rows-run", "--quiet", "-o", "out.csv"),
)
AGAIN = (*TRAINED[:-1], "again")
RESUMED: tuple[Words, ...] = (("resume", "stopped", "--quiet"),)
MAKING: tuple[Words, ...] = (
    TRAINED,
    (*PIXELS, "--out", "other"),
    (*CLUSTERED[:-1], "rows-run"),
    ("name", "run", "0", "herbs"),
    ("merge", "run", "1", "2"),
    ("move", "run", "none", "68"),
)


@dataclass(frozen=True)
class Victim:
    """Name files that are damaged, and the commands that read them."""

    files: str
    """A pattern of paths; each damage takes one of them."""
    readers: tuple[Words, ...]
    kinds: tuple[str, ...] = ()
    """The damages that fit the file, beside those that fit any."""
    read: Callable[[Path], np.ndarray] | None = None
    """For inputs, another reader: whatever it can read is right if the run has read the same."""
    unless: tuple[str, ...] = ()
    """The damages that are no damage of this file."""


def _cluster(name: str) -> tuple[Words, ...]:
    return (("cluster", name, "--n-clusters", "3", *TINY, "--no-report", "--out", "new"),)


def _images(name: str) -> tuple[Words, ...]:
    words = ("run", "--data", name, "--backbone", "identity", "--cache", "none", "--n-clusters", "3", *TINY)
    return ((*words, "--no-report", "--set", "data.size=8", "--out", "new"),)


def _hdf5(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return np.asarray(file["features"])


def _csv(path: Path) -> np.ndarray:
    with path.open(newline="") as file:
        return np.array([[float(cell) for cell in row] for row in csv.reader(file)])


def _pictures(paths: list[io.BytesIO] | list[Path]) -> np.ndarray:
    opened = [np.asarray(Image.open(path).convert("L"), np.float32) / 255 for path in paths]
    return np.stack(opened).reshape(len(opened), -1)


def _zipped(path: Path) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        return _pictures([io.BytesIO(archive.read(name)) for name in sorted(archive.namelist())])


VICTIMS = {
    "features of a run": Victim("run/features.h5", RUN_READERS),
    "features of rows": Victim("rows-run/features.h5", ROWS_READERS),
    "weights": Victim("run/checkpoints/*.safetensors", RUN_READERS),
    "figures": Victim("run/metrics.json", RUN_READERS, ("json",)),
    "configuration": Victim("run/run.toml", RUN_READERS, ("toml",)),
    "assignments": Victim("run/assignments.csv", RUN_READERS),
    "affinity": Victim("run/affinity.npz", RUN_READERS),
    # Who removes the file wants the clusters as the run found them.
    "decisions": Victim("run/decisions.json", RUN_READERS, ("json",), unless=("delete",)),
    "manifest": Victim("run/manifest*", RUN_READERS),
    "cached features": Victim("cache/*/features.h5", (AGAIN,)),
    "cached weights": Victim("cache/*/*.safetensors", (AGAIN,)),
    "cached record": Victim("cache/*/training.json", (AGAIN,), ("json",)),
    "checkpoint": Victim("kept/*.training.safetensors", RESUMED),
    "unfinished run": Victim("stopped/unfinished.toml", RESUMED, ("toml",)),
    "rows as .npy": Victim("rows.npy", _cluster("rows.npy"), read=np.load),
    "rows as .npz": Victim("rows.npz", _cluster("rows.npz"), read=lambda path: np.load(path)["features"]),
    "rows as .h5": Victim("rows.h5", _cluster("rows.h5"), read=_hdf5),
    "rows as .csv": Victim("rows.csv", _cluster("rows.csv"), read=_csv),
    "images of a folder": Victim(
        "photos/*", _images("photos"), read=lambda path: _pictures(sorted(path.parent.iterdir()))
    ),
    "images of a .zip": Victim("photos.zip", _images("photos.zip"), read=_zipped),
    "images of an .npz": Victim(
        "photos.npz",
        _images("photos.npz"),
        read=lambda path: np.load(path)["images"].reshape(12, -1).astype(np.float32) / 255,
    ),
}


def flip(path: Path, rng: random.Random) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def overwrite(path: Path, rng: random.Random) -> None:
    """Put random bytes, zeros, or the inverse of zeros in the place of up to 200 bytes."""
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.randint(2, 200))
    new = bytes(end - start) if rng.random() < 0.5 else rng.randbytes(end - start)
    if new == content[start:end]:  # zeros over zeros are no damage
        new = b"\xff" * len(new)
    content[start:end] = new
    path.write_bytes(content)


def truncate(path: Path, rng: random.Random) -> None:
    """Cut the file off anywhere; at times at its start."""
    size = rng.choice((0, rng.randrange(path.stat().st_size)))
    path.write_bytes(path.read_bytes()[:size])


def delete(path: Path, rng: random.Random) -> None:
    """Remove the file."""
    path.unlink()


def swap(path: Path, rng: random.Random) -> None:
    """Put another file of the same folder in its place."""
    others = [other for other in sorted(path.parent.iterdir()) if other.is_file() and other != path]
    path.write_bytes(rng.choice(others).read_bytes() if others else b"another file")


def retype(path: Path, rng: random.Random) -> None:
    """Give a value in a file of JSON or TOML another type."""
    toml = path.suffix == ".toml"
    text = path.read_text()
    tree: Any = tomllib.loads(text) if toml else json.loads(text)
    places = list(_places(tree))
    container, key = rng.choice(places)
    odd = ["word", -1, 10**300, 0.5, [], {}, True, float("nan"), _nested(50)]
    container[key] = rng.choice(odd + ([] if toml else [None]))
    if toml and container[key] == 10**300:
        container[key] = 2**63 - 1
    # The first line of a record may guard it; who removes it wants the change.
    guard = text.partition("\n")[0] + "\n" if toml and text.startswith("#") else ""
    path.write_text(guard + tomli_w.dumps(tree) if toml else json.dumps(tree))


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key in tree if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])


def _nested(depth: int) -> Any:
    return [_nested(depth - 1)] if depth else []


ANY: dict[str, Callable[[Path, random.Random], None]] = {
    "flip": flip,
    "overwrite": overwrite,
    "truncate": truncate,
    "delete": delete,
    "swap": swap,
}
KINDS = ANY | {"json": retype, "toml": retype}


@dataclass(frozen=True)
class Verdict:
    """Say what a command made of a damaged file."""

    what: str
    detail: str = ""


class Ward:
    """Hold runs and inputs in a folder, and damage them one after the other.

    All happens in ``folder/work``, because results name absolute paths.
    """

    def __init__(self, commands: Commands, folder: Path) -> None:
        self.commands, self.folder, self.work = commands, folder, folder / "work"
        self.expected: dict[Words, tuple[str, dict[str, str]]] = {}
        self.work.mkdir()
        _write_inputs(self.work)
        for words in MAKING:
            ended = self.run(words)
            assert ended.code == 0, ended
        cached = (*TRAINED[:-3], "kept", "--out", "stopped")
        events = self.run(cached, every=0.0).events
        (at, *_) = [i for i, e in enumerate(events, 1) if e.startswith("rename") and ".training." in e]
        for left in ("stopped", "kept"):
            shutil.rmtree(self.work / left)
        assert self.run(cached, kill_at=at + 1, every=0.0).killed
        shutil.copytree(self.work, self.folder / "whole")

    def run(self, words: Words, kill_at: int | None = None, every: float = 1e9) -> Ended:
        """Run a command in the folder."""
        environment = {"EBSC_CACHE_DIR": str(self.folder / "user")}
        asked = Request(words, str(self.work), "", environment, SECONDS, every, kill_at=kill_at)
        return self.commands.run(asked)

    def restore(self) -> None:
        """Make the folder whole again."""
        shutil.rmtree(self.work)
        shutil.copytree(self.folder / "whole", self.work)

    def harm(
        self, name: str, kind: str, rng: random.Random, count: int | None = None
    ) -> Iterator[tuple[Words, Verdict]]:
        """Damage one file of this victim; yield what so many of its readers, or all, make of it."""
        victim = VICTIMS[name]
        readers = rng.sample(victim.readers, len(victim.readers) if count is None else count)
        state = rng.getstate()
        for words in readers:
            self.restore()
            if words not in self.expected:
                self.expected[words] = self._outcome(words)
                self.restore()
            rng.setstate(state)
            paths = sorted(self.work.glob(victim.files))
            if not paths:
                return
            path = rng.choice(paths)
            KINDS[kind](path, rng)
            yield words, self._judge(words, path, victim)

    def _outcome(self, words: Words) -> tuple[str, dict[str, str]]:
        ended = self.run(words)
        assert ended.code == 0, f"{words}: {ended}"
        return ended.out, contents(self.work)

    def _judge(self, words: Words, path: Path, victim: Victim) -> Verdict:
        before = contents(self.work)
        ended = self.run(words)
        if ended.hung:
            return Verdict(HANG, str(ended))
        if "Traceback" in ended.err or ended.code < 0:
            return Verdict(TRACEBACK, str(ended))
        after = contents(self.work)
        if ended.code:
            fits = ended.line or (words[0] == "doctor" and "failed" in ended.out)
            left = differing(after, before)
            return Verdict(REFUSED) if fits and not left else Verdict(WRONG, f"left {left}; {ended}")
        out, expected = self.expected[words]
        if victim.read:
            # An entry of an archive whose name no longer looks like an image is left out, and this is said.
            said = "left out" in ended.err
            return Verdict(RIGHT) if said else self._as_read(path, victim.read)
        if words[0] == "doctor":  # without a manifest it can verify nothing, and says so
            warned = "unchecked" in ended.out
            return Verdict(RIGHT) if warned else Verdict(WRONG, f"finds nothing wrong: {ended}")
        if words[0] == "runs":
            return Verdict(RIGHT)  # it lists what is there, and verifies nothing
        name = str(path.relative_to(self.work))
        wrong = [one for one in differing(after, expected) if one != name]
        if ended.err:  # what it has said is recorded, too
            wrong = [one for one in wrong if Path(one).name not in RECORDS]
        same = ended.out == out or words[0] in ("report", "run", "resume", "predict")
        return Verdict(RIGHT) if same and not wrong else Verdict(WRONG, f"{wrong}; {ended}")

    def _as_read(self, path: Path, read: Callable[[Path], np.ndarray]) -> Verdict:
        """Compare what a run on a damaged input has read with what another reader reads."""
        try:
            expected = np.asarray(read(path), np.float32)
        except Exception as error:
            return Verdict(WRONG, f"another reader refuses it: {type(error).__name__}: {error}")
        with h5py.File(self.work / "new/features.h5") as file:
            found = np.asarray(file["features"])
        same = found.shape == expected.shape and np.allclose(found, expected, rtol=1e-5)
        return Verdict(RIGHT) if same else Verdict(WRONG, f"{found.shape} is not {expected.shape} as read")


def kinds_of(name: str) -> list[str]:
    """Return the damages that fit a victim."""
    victim = VICTIMS[name]
    return [kind for kind in (*ANY, *victim.kinds) if kind not in victim.unless]


def _write_inputs(folder: Path) -> None:
    random_numbers = np.random.default_rng(0)
    for name, n in (("rows", 30), ("later", 9)):
        rows = np.repeat(np.eye(3, 8, dtype=np.float32), n // 3, 0)
        rows += 0.1 * random_numbers.standard_normal(rows.shape, dtype=np.float32)
        np.save(folder / f"{name}.npy", rows)
    rows = np.load(folder / "rows.npy")
    np.savez_compressed(folder / "rows.npz", features=rows)
    np.savetxt(folder / "rows.csv", rows, delimiter=",")
    with h5py.File(folder / "rows.h5", "w") as file:
        file["features"] = rows
    images = random_numbers.integers(0, 256, (12, 8, 8), np.uint8)
    np.savez(folder / "photos.npz", images=images)
    (folder / "photos").mkdir()
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        for number, image in enumerate(images):
            path = folder / f"photos/{number:02}.png"
            Image.fromarray(image).save(path)
            archive.write(path, path.name)
