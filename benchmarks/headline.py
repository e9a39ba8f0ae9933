"""Measure the headline figures on one GPU, in pieces: throughput, suites, held-out images and reports.

    python benchmarks/headline.py --data DIR --work DIR --out DIR --minutes 9 [--set train.epochs=400]

Repeat the command, with the same ``--work``, until it prints "done". It reuses finished cells and resumes
an interrupted training. ``--data`` holds cifar10-train.npz, cifar10-test.npz and cifar10.npz (from
``benchmarks/gpu/unpack.py``), fashion-mnist.npz and mnist.npz; the script leaves out missing data sets. It
needs no network. ``--out`` gets at most eight files: tables, figures and the reports of the first seed. The
script measures throughput on a GPU only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import tomli_w
import torch
from measuring import described, ebsc, keep, predicted_scores

from ebsc_core.benchmark.suite import load_suite
from ebsc_core.config.loading import without_none
from ebsc_core.utils.files import written_whole

HERE = Path(__file__).parent
SUITES = ("headline", "senet-published")
# The suite trains these rows. The script then fits them again from the cache and scores them on held-out
# images.
OUT_OF_SAMPLE = ("simclr + energy", "byol + energy", "moco-v3 + energy", "simclr neighbors + energy")
TRAINED_ON, HELD_OUT = "CIFAR-10 train", "cifar10-test.npz"
# These minutes are for the end of a piece: a step, keeping the training, tables and copies.
MARGIN = 1.0
# The exit status of a benchmark that was called wrongly.
MISTAKE = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="PART.OPTION=VALUE")
    options = parser.parse_args()
    piece = Piece(options)
    done = piece.throughput() and piece.suites() and piece.out_of_sample()
    piece.copy()
    if done:
        print("done")
    elif piece.left:
        print("not all was measured: see what failed above")
    else:
        print("the time is up: give the same command again")


class Piece:
    """Do as much of the work as the given minutes allow."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.until = time.monotonic() + 60 * (options.minutes - MARGIN)
        self.data, self.work, self.out = (
            path.absolute() for path in (options.data, options.work, options.out)
        )
        self.settings = [word for setting in options.settings for word in ("--set", setting)]
        self.work.mkdir(parents=True, exist_ok=True)
        self.out.mkdir(parents=True, exist_ok=True)
        os.environ["EBSC_DATA_DIR"] = str(self.data)

    @property
    def left(self) -> float:
        """Return the minutes that are left."""
        return max(0.0, (self.until - time.monotonic()) / 60)

    def throughput(self) -> bool:
        """Measure throughput (also of lightly, if installed) and profile the step, once."""
        scripts = {
            "simclr": ["--steps", "20", "--workers", "8", "--batch", "512"],
            "step_profile": ["--batch", "512"],
        }
        for name, words in scripts.items():
            record = self.work / f"speed-{name}.json"
            if not record.exists() and self.left and torch.cuda.is_available():
                words += ["--device", "cuda", "--out", str(record)]
                subprocess.run([sys.executable, HERE / "speed" / f"{name}.py", *words], check=False)
        return True

    def suites(self) -> bool:
        """Run both suites; tell whether every cell of the available data is finished."""
        finished = [self._suite(name) for name in SUITES]
        return all(finished)

    def _suite(self, name: str) -> bool:
        """Run the cells of a suite whose data are there; tell whether all of them are finished."""
        suite = self._of_data_there(tomllib.loads((HERE / "suites" / f"{name}.toml").read_text()))
        if not suite["data"]:
            print(f"{name}: none of its data sets is in {self.data}")
            return True
        if not self.left:
            return False
        file = self.work / f"{name}.toml"
        with written_whole(file) as temporary_path:
            temporary_path.write_text(tomli_w.dumps(suite))
        words = ["--out", self.work / name, "--cache", self.work / "cache", "--minutes", f"{self.left:.2f}"]
        done = subprocess.run(
            [sys.executable, "-m", "ebsc_cli", "benchmark", file, *words, *self.settings], check=False
        )
        if done.returncode == MISTAKE:
            sys.exit(MISTAKE)  # the benchmark has said why; another piece would end the same way
        return done.returncode == 0

    def _of_data_there(self, suite: dict[str, Any]) -> dict[str, Any]:
        """Leave out the data sets that are missing, and what was published on them."""
        data = {
            name: table
            for name, table in suite["data"].items()
            if Path(os.path.expandvars(table["data"]["name"])).exists()
        }
        published = [figure for figure in suite.get("published", []) if figure["data"] in data]
        return suite | {"data": data, "published": published}

    def out_of_sample(self) -> bool:
        """Score each finished cell of the whole method on held-out images."""
        if not ((self.data / HELD_OUT).exists() and (self.work / "headline/results.json").exists()):
            return True
        suite = load_suite(self.work / "headline.toml", self.settings[1::2])
        finished = json.loads((self.work / "headline/results.json").read_text())["cells"]
        for cell in suite.cells():
            scored = any(
                (found["row"], found["data"], found["seed"]) == (cell.row, cell.column, cell.seed)
                and "failed" not in found
                for found in finished
            )
            if scored and cell.column == TRAINED_ON and cell.row in OUT_OF_SAMPLE:
                if not self.left:
                    return False
                self._predict(cell)
        return True

    def _predict(self, cell: Any) -> None:
        run = self.work / "runs" / f"{cell.row}-{cell.seed}".replace(" ", "-").replace("+", "and")
        scores = run / "out-of-sample.json"
        if scores.exists():
            return
        shutil.rmtree(run, ignore_errors=True)
        config, clusters = self.work / "cell.toml", self.work / "clusters.csv"
        settings = cell.config.model_dump(mode="json", exclude_unset=True)
        config.write_text(tomli_w.dumps(without_none(settings | {"cache": str(self.work / "cache")})))
        ebsc("run", "--config", config, "--out", run)
        ebsc("predict", run, self.data / HELD_OUT, "-o", clusters)
        fitted = json.loads((run / "metrics.json").read_text())
        keep(
            {
                "fitted": fitted["scores"],
                "seconds": fitted["features_cost"]["seconds"] | fitted["seconds"],
                "clustering_device_memory_mib": fitted["clustering_device_memory_mib"],
                **predicted_scores(clusters),
            },
            scores,
        )

    def copy(self) -> None:
        """Copy tables, figures and reports to ``--out``."""
        for name in SUITES:
            for file in ("table.md", "results.json"):
                if (self.work / name / file).exists():
                    shutil.copyfile(self.work / name / file, self.out / f"{name}-{file}")
        scored = {
            path.parent.name: json.loads(path.read_text())
            for path in self.work.glob("runs/*/out-of-sample.json")
        }
        speed = {path.stem: json.loads(path.read_text()) for path in self.work.glob("speed-*.json")}
        keep(described() | {"out_of_sample": scored} | speed, self.out / "headline.json")
        for report in sorted(self.work.glob("runs/*-0/report.html"))[:3]:
            shutil.copyfile(report, self.out / f"{report.parent.name}.html")


if __name__ == "__main__":
    main()
