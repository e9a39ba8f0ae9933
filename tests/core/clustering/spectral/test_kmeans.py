from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from ebsc_core.clustering.spectral import kmeans as module
from ebsc_core.clustering.spectral.kmeans import kmeans


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat a thousand rows as many."""
    monkeypatch.setattr(module, "WHOLE", 1000)
    monkeypatch.setattr(module, "SAMPLE", 500)
    monkeypatch.setattr(module, "SAMPLE_PER_CLUSTER", 50)
    monkeypatch.setattr(module, "BLOCK_ROWS", 700)


def rows_of(n: int, k: int = 6, spread: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    rows = rng.normal(size=(k, 8))[labels] + spread * rng.normal(size=(n, 8))
    return rows.astype(np.float32), labels


def inertia(rows: np.ndarray, labels: np.ndarray) -> float:
    return sum(float(((rows[labels == k] - rows[labels == k].mean(0)) ** 2).sum()) for k in np.unique(labels))


def test_few_rows_are_left_to_scikit_learn() -> None:
    rows, _ = rows_of(800)
    expected = KMeans(6, n_init=4, random_state=3).fit_predict(rows)
    found = kmeans(rows, 6, 4, 3)
    assert (found == expected).all()
    assert found.dtype == np.int64


@pytest.mark.usefixtures("sampled")
@pytest.mark.parametrize("spread", [0.2, 0.6, 1.5])
def test_many_rows_end_as_well_as_if_all_had_been_seen(spread: float) -> None:
    rows, labels = rows_of(3000, spread=spread)
    whole = KMeans(6, n_init=10, random_state=0).fit(rows)
    found = kmeans(rows, 6, 10, 0)
    assert inertia(rows, found) <= 1.01 * whole.inertia_
    if spread == 0.2:
        assert adjusted_rand_score(labels, found) == 1
    assert found.dtype == np.int64


@pytest.mark.usefixtures("sampled")
def test_rows_are_finished_on_all_of_them() -> None:
    """Each label is that of the nearest mean, within what the last round moved."""
    rows, _ = rows_of(3000, spread=0.6)
    found = kmeans(rows, 6, 3, 0)
    centers = np.stack([rows[found == k].mean(axis=0) for k in range(6)])
    nearest = ((rows[:, None] - centers) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == found).mean() > 0.99


@pytest.mark.usefixtures("sampled")
def test_the_seed_decides() -> None:
    rows, _ = rows_of(2000, spread=1.5)
    assert (kmeans(rows, 6, 2, 1) == kmeans(rows, 6, 2, 1)).all()
    assert (kmeans(rows, 6, 1, 1) != kmeans(rows, 6, 1, 2)).any()


@pytest.mark.usefixtures("sampled")
def test_fewer_distinct_rows_than_clusters_are_survived() -> None:
    rows = np.repeat(np.eye(3, dtype=np.float32), 500, axis=0)
    labels = kmeans(rows, 5, 2, 0)
    assert len(np.unique(labels)) == 3
    assert adjusted_rand_score(np.repeat([0, 1, 2], 500), labels) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.usefixtures("sampled")
def test_a_gpu_finds_the_same_clusters() -> None:
    rows, _ = rows_of(3000)
    here, there = kmeans(rows, 6, 5, 0), kmeans(rows, 6, 5, 0, torch.device("cuda"))
    assert adjusted_rand_score(here, there) > 0.99
