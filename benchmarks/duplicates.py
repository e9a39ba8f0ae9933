"""Measure `ebsc duplicates` on photographs with planted copies.

    EBSC_DATA_DIR=… python benchmarks/duplicates.py [--seeds 5] [--run] [--out duplicates.json]

Each seed draws 2,000 photographs of CIFAR-10 and adds 50 exact copies and 50 near duplicates: resized (by 0.6
to 1.6), recompressed (JPEG of quality 50 to 80), cropped (5 % of each side, anywhere), and all three. With
`--run` the same folder is clustered first (pixels, without training), and the duplicates are the run's.

CIFAR-10 has duplicates of its own, tinted and edited ones among them. `OWN` lists those that the first five
seeds found; each was looked at. Every other pair that was not planted counts as wrong.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
import zipfile
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from measuring import command, described, ebsc, keep
from PIL import Image

PHOTOS, EXACT, NEAR = 2000, 50, 50
WAYS = ("resized", "recompressed", "cropped", "all")
OWN = (
    ("automobile-0047", "automobile-2638"),
    ("automobile-1451", "automobile-4110"),
    ("automobile-1523", "automobile-3303", "automobile-4541"),
    ("automobile-1534", "automobile-2973", "automobile-3624", "automobile-4717"),
    ("automobile-1870", "automobile-2460"),
    ("automobile-2120", "automobile-2580"),
    ("airplane-1078", "airplane-4772"),
    ("bird-0203", "bird-2246"),
    ("bird-0923", "bird-4663"),
    ("cat-2485", "cat-3352"),
    ("frog-0501", "frog-1761"),
    ("frog-1409", "frog-4292"),
    ("frog-2915", "frog-4570"),
)


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--run", action="store_true", help="find the duplicates of a run")
    options = parser.parse_args()
    source = Path(os.environ["EBSC_DATA_DIR"], "cifar10-train.zip")
    figures = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            figures.append(measure(source, Path(folder), seed, options.run))
        print(json.dumps(figures[-1]), flush=True)
    keep(described() | {"of a run": options.run, "seeds": figures}, options.out)


def measure(source: Path, folder: Path, seed: int, of_run: bool) -> dict[str, Any]:
    """Plant copies, look for them, and compare."""
    photos, table = folder / "photos", folder / "found.csv"
    planted = plant(source, photos, seed)
    asked = photos
    if of_run:
        asked = folder / "run"
        quick = ("--backbone", "identity", "--epochs", 0, "--coefficients", "knn", "--no-report")
        ebsc("run", "--data", photos, *quick, "--n-clusters", 10, "--cache", "none", "--out", asked)
    seconds = ebsc("duplicates", asked, "-o", table)
    return scores(planted, groups(table)) | {"seed": seed, "seconds": seconds}


def plant(source: Path, photos: Path, seed: int) -> dict[str, tuple[str, str]]:
    """Write a folder of photographs with copies; return original and way of each copy."""
    photos.mkdir()
    numbers = np.random.default_rng(seed)
    with zipfile.ZipFile(source) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        chosen = [names[i] for i in numbers.choice(len(names), PHOTOS, replace=False)]
        for name in chosen:
            (photos / flat(name)).write_bytes(archive.read(name))
    copied = numbers.choice(PHOTOS, EXACT + NEAR, replace=False)
    planted = {}
    for number, place in enumerate(copied.tolist()):
        original = flat(chosen[place])
        way = "exact" if number < EXACT else WAYS[number % len(WAYS)]
        name = f"copy-{number:03}.jpg"
        content = (photos / original).read_bytes()
        (photos / name).write_bytes(content if way == "exact" else changed(content, way, numbers))
        planted[name] = (original, way)
    return planted


def flat(name: str) -> str:
    return name.replace("/", "-")


def changed(content: bytes, way: str, numbers: np.random.Generator) -> bytes:
    """Return a JPEG that shows the same picture in another way."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    if way in ("cropped", "all"):
        width, height = (max(1, round(0.95 * side)) for side in picture.size)
        left = int(numbers.integers(picture.width - width + 1))
        top = int(numbers.integers(picture.height - height + 1))
        picture = picture.crop((left, top, left + width, top + height))
    if way in ("resized", "all"):
        factor = numbers.uniform(0.6, 1.6)
        picture = picture.resize(
            tuple(round(factor * side) for side in picture.size), Image.Resampling.BICUBIC
        )
    quality = int(numbers.integers(50, 81)) if way in ("recompressed", "all") else 95
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def groups(table: Path) -> list[list[tuple[str, str]]]:
    """Return the groups of a table: the names and kinds of their images."""
    found = defaultdict(list)
    with table.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            found[line["group"]].append((line["image"], line["kind"]))
    return list(found.values())


def scores(planted: dict[str, tuple[str, str]], found: list[list[tuple[str, str]]]) -> dict[str, Any]:
    """Return recall by way, and the precision of pairs within groups."""
    group_of = {name: number for number, group in enumerate(found) for name, _ in group}
    hits = {
        way: [
            group_of.get(copy, -1) == group_of.get(original, -2)
            for copy, (original, how) in planted.items()
            if how == way
        ]
        for way in ("exact", *WAYS)
    }
    near = [hit for way in WAYS for hit in hits[way]]
    right, own, wrong = 0, 0, []
    for group in found:
        for one, other in combinations((name for name, _ in group), 2):
            first, second = (planted.get(name, (name, ""))[0] for name in (one, other))
            if first == second:
                right += 1
            elif any({Path(first).stem, Path(second).stem} <= set(same) for same in OWN):
                own += 1
            else:
                wrong.append((one, other))
    return {
        "recall of exact": float(np.mean(hits["exact"])),
        "recall of near": float(np.mean(near)),
        "recall by way": {way: round(float(np.mean(hits[way])), 3) for way in WAYS},
        "pairs": {"planted": right, "of CIFAR-10 itself": own, "wrong": len(wrong)},
        "precision": round((right + own) / max(1, right + own + len(wrong)), 4),
        "wrong": wrong,
    }


if __name__ == "__main__":
    main()
