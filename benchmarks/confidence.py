"""Say how well measures that need no label order the images of finished runs, and compare clusterings.

    ebsc run --data digits --seed 0 --out runs/digits-0                        # and so on, then
    python benchmarks/confidence.py runs/* [--out FILE.json]

Names of runs end with their seed; the runs of one name are one line, the mean over them. All images need
labels, which only judge.

kept
    The share of nearest neighbours that the clusters keep together (``ebsc_core.clustering.comparison``).
best, share alone, silhouette, confidence
    The area under the risk-coverage curve (AURC; Geifman and El-Yaniv, NIPS 2017): the mean error of the
    surest n images, over all n. Lower is better, and ``best`` is that of an order that knows the errors.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
from measuring import command, described, keep
from sklearn.metrics import silhouette_samples

from ebsc_core.clustering.metrics import own_share
from ebsc_core.curation.graph import required_graph
from ebsc_core.report.confusion import compare_with_classes
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import EbscError

COLUMNS = ("acc", "kept", "best", "share alone", "silhouette", "confidence", "less sure", "surer")


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run with labels: NAME-SEED")
    options = parser.parse_args()
    found = {path.name: looked_at(path) for path in sorted(options.runs)}
    print("| run | seeds | " + " | ".join(COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for name, group in groupby(found, key=lambda run: run.rpartition("-")[0]):
        runs = [found[run] for run in group]
        means = (f"{np.mean([run[column] for run in runs]):.1f}" for column in COLUMNS)
        print(f"| {name} | {len(runs)} | " + " | ".join(means) + " |")
    keep(described() | {"percent": found}, options.out)


def looked_at(path: Path) -> dict[str, float]:
    """Compute the figures of one run, in percent."""
    try:
        run = SavedRun(path)
        images, kept = run.assignments, run.metrics["comparison"]["neighbors_kept"]
        graph = required_graph(run, "the share")
    except (EbscError, KeyError) as error:
        raise SystemExit(f"{path} is not a run that can be judged ({error!r})") from None
    compared = compare_with_classes(images)
    if compared is None or len(graph.positions) < len(images.ids):
        raise SystemExit(f"{path} has images without a label, or without affinity")
    wrong = np.isin(np.arange(len(images.ids)), compared.wrong)
    surest = np.argsort(-images.confidence, kind="stable")
    surer, less = np.array_split(wrong[surest], 2)
    measures = {
        "best": ~wrong,
        "share alone": own_share(graph.matrix, images.clusters),
        "silhouette": silhouette_samples(run.rows.held().numpy(), images.clusters, metric="cosine"),
        "confidence": images.confidence,
    }
    figures = {
        "acc": 1 - wrong.mean(),
        "kept": kept,
        **{name: risk(wrong, sureness) for name, sureness in measures.items()},
        "less sure": 1 - less.mean(),
        "surer": 1 - surer.mean(),
    }
    return {name: round(100 * float(figure), 2) for name, figure in figures.items()}


def risk(wrong: np.ndarray, sureness: np.ndarray) -> float:
    """Compute the area under the risk-coverage curve; images that are equally sure share their errors."""
    _, place, counts = np.unique(-sureness.astype(np.float64), return_inverse=True, return_counts=True)
    errors = np.repeat(np.bincount(place, wrong) / counts, counts)
    return float(np.mean(np.cumsum(errors) / np.arange(1, len(wrong) + 1)))


if __name__ == "__main__":
    main()
