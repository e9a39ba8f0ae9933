"""Summarise a file of features in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ebsc_core.config.schema import FeaturesChoice
from ebsc_core.data.features.effective_rank import effective_rank
from ebsc_core.data.features.files import read_features
from ebsc_core.data.features.hdf5 import opened
from ebsc_core.data.features.hdf5_files import dataset_names, open_dataset
from ebsc_core.data.features.rows import unit_rows
from ebsc_core.data.features.source import FeatureSource
from ebsc_core.data.features.store import FORMAT
from ebsc_core.utils.sampling import sample_positions

# Number of rows for the effective rank.
SAMPLE = 2000


def feature_facts(choice: FeaturesChoice) -> dict[str, str]:
    """Return size, names, classes, lengths and effective rank of the rows, in one pass over the file.

    Raises
    ------
    DataError
        If the file cannot be read, or holds NaN or infinity.
    """
    features = read_features(choice)
    n, width = features.shape
    lengths, sample = _pass(features)
    names = f"{', '.join(map(_shown, features.ids[:3]))}, …"
    span = f"from {lengths.min():.4g} to {lengths.max():.4g}"
    facts = {
        "file": str(features.path),
        "rows": f"{n} of {width} numbers",
        "names": names if features.named else "none: rows are numbered",
        "classes": str(features.n_classes) if features.n_classes else "no labels",
        "length of a row": f"{lengths.mean():.4g} ± {lengths.std():.2g}, {span}",
        "rows of zeros": str(int((lengths == 0).sum())),
        "effective rank": f"{effective_rank(sample):.1f} of {width} (of {len(sample)} rows)",
    }
    return facts | _of_ours(features.path)


def _shown(name: str) -> str:
    """Return a name on one line that any terminal can show."""
    return name if name.isprintable() else repr(name)


def _pass(features: FeatureSource) -> tuple[np.ndarray, torch.Tensor]:
    """Return the lengths of all rows ``(N,)``, and a sample of the rows at unit length."""
    wanted = sample_positions(len(features), SAMPLE, 0)
    lengths, chosen, start = [], [], 0
    for block in features.blocks():
        lengths.append(block.double().norm(dim=1).numpy())  # squares of float32 may be too large for it
        here = wanted[(wanted >= start) & (wanted < start + len(block))] - start
        chosen.append(unit_rows(block[torch.from_numpy(here)]))
        start += len(block)
    return np.concatenate(lengths), torch.cat(chosen)


def _of_ours(path: Path) -> dict[str, str]:
    """Return the metadata of a feature file that a run wrote; empty for other files."""
    if path.suffix.lower() not in (".h5", ".hdf5"):
        return {}
    with opened(path) as file:
        said = file.attrs.get("format")
        if not (isinstance(said, str) and said == FORMAT):  # in a file of others, it may be an array
            return {}
        arrays = (f"{name} {open_dataset(path, file, name).shape}" for name in dataset_names(file)[0])
        return {
            "arrays": ", ".join(arrays),
            "key": str(file.attrs.get("key")),
            "made from": str(file.attrs.get("made_from")),
        }
