"""Equal runs give equal clusters with any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys

THREE_FITS = """
import torch
from sklearn.datasets import load_digits
from ebsc_core import EnergySubspaceClustering

torch.set_num_threads(4)
rows = load_digits()["data"]
fits = [EnergySubspaceClustering(n_clusters=10, random_state=0).fit(rows).labels_ for _ in range(3)]
print(all((labels == fits[0]).all() for labels in fits))
"""


def test_equal_fits_number_their_clusters_alike_with_four_threads() -> None:
    done = subprocess.run(
        [sys.executable, "-c", THREE_FITS],
        env=os.environ | {"OMP_NUM_THREADS": "4"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "True"
