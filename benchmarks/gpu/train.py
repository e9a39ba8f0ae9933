"""Train once on a GPU, in pieces; predict held-out images, compare models, and keep the features.

    python benchmarks/gpu/train.py NAME --work DIR --out DIR --minutes 9 [--held-out FILE] -- ARGUMENTS

``ARGUMENTS`` are those of ``ebsc run``. When the time is over, the script keeps a checkpoint of the
training; the same command resumes it. ``--out`` gets ``NAME.json`` (figures of the run, scores of the
held-out images and of other components on the same features, the device) and features as float16 in files
of at most 15 MB. With these, more components can be compared elsewhere.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measuring import described, ebsc, keep, predicted_scores, vote

from ebsc_core.runs.store.unfinished import is_unfinished

EBSC = [sys.executable, "-m", "ebsc_cli"]
# These minutes are for the work at the end: keeping a training, and copying figures and features.
MARGIN = 0.5
PIECE = 15_000_000
# These cluster the same features.
OTHERS: dict[str, list[str]] = {
    "energy": [],
    "knn": ["--coefficients", "knn", "--set", "whiten=false"],
    "knn, whitened": ["--coefficients", "knn", "--set", "whiten=true"],
    "k-means": ["--coefficients", "knn", "--set", "whiten=false", "--clusterer", "KMeans"],
}
NEIGHBORS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--held-out", type=Path)
    parser.add_argument("--no-features", action="store_true")
    parser.add_argument("--no-others", action="store_true")
    words = sys.argv[1:]
    own = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:own])
    options.arguments = words[own + 1 :]
    until = time.monotonic() + 60 * (options.minutes - MARGIN)
    run = options.work / "runs" / options.name
    options.out.mkdir(parents=True, exist_ok=True)
    if not finished(run, options, until):
        print("the time is up: give the same command again", flush=True)
        return
    record = described() | {"arguments": options.arguments}
    record["metrics"] = json.loads((run / "metrics.json").read_text())
    features = {"train": run / "features.h5"}
    if options.held_out:
        record["held_out"], features["test"] = predicted(run, options.held_out, options.work)
        record["held_out"]["vote"] = vote(features["train"], NEIGHBORS, features["test"])
    record["others"] = {} if options.no_others else others(run)
    keep(record, options.out / f"{options.name}.json")
    told = {"scores": record["metrics"]["scores"], "held_out": record.get("held_out")}
    print(json.dumps(told | {"others": record["others"]}), flush=True)
    if not options.no_features:
        for split, file in features.items():
            keep_features(file, options.out, f"{options.name}-{split}")


def finished(run: Path, options: argparse.Namespace, until: float) -> bool:
    """Start or resume the run, until it is finished or the time is up."""
    if run.exists() and not is_unfinished(run):
        return True
    words = ["run", *options.arguments, "--out", run, "--cache", options.work / "cache"]
    if run.exists():
        words = ["resume", run]
    process = subprocess.Popen([*EBSC, *map(str, words)])
    try:
        return process.wait(max(1.0, until - time.monotonic())) == 0
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait()
        return False


def predicted(run: Path, images: Path, work: Path) -> tuple[dict[str, Any], Path]:
    """Predict the clusters of held-out images; return their scores and the file of their features."""
    table, features = work / f"{run.name}-test.csv", work / f"{run.name}-test.h5"
    if not features.exists():
        words = ["predict", run, images, "-o", table, "--features", features, "--quiet"]
        subprocess.run([*EBSC, *map(str, words)], check=True)
    return predicted_scores(table), features


def others(run: Path) -> dict[str, dict[str, float]]:
    """Cluster the features of the run again with other components; return the scores of each."""
    found = {}
    for name, settings in OTHERS.items():
        out = run.with_name(f"{run.name}-{name.replace(', ', '-')}")
        if not out.exists():
            ebsc("cluster", run / "features.h5", *settings, "--out", out, "--no-report")
        found[name] = json.loads((out / "metrics.json").read_text())["scores"]
    return found


def keep_features(path: Path, out: Path, name: str) -> None:
    """Copy features and labels as float16, in files that each hold some of the rows."""
    with h5py.File(path) as file:
        rows = file["features"].astype(np.float16)[:]
        labels = file["labels"][:] if "labels" in file else np.empty(0)
    each = PIECE // rows[0].nbytes
    for number, start in enumerate(range(0, len(rows), each)):
        part = slice(start, start + each)
        np.savez(out / f"{name}-{number}.npz", features=rows[part], labels=labels[part])


if __name__ == "__main__":
    main()
