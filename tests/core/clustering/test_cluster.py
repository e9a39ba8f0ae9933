"""Rows to clusters: all of them, or a sample whose clusters the others join."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import h5py
import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.clustering.cluster import ClusteringResult, Method, cluster_rows
from ebsc_core.config.schema import AffinityOptions, RefineOptions, SearchOptions
from ebsc_core.data.features import rows as rows_module
from ebsc_core.data.features.rows import HeldRows, Rows, StoredRows
from ebsc_core.plugins.interfaces import Clusterer, CoefficientModel
from ebsc_core.utils.errors import ComponentError
from ebsc_core.utils.progress import Progress, Stages
from ebsc_plugins.clusterers.spectral import SpectralClustering, SpectralOptions
from ebsc_plugins.coefficients.energy import EnergyNetwork, EnergyOptions
from ebsc_plugins.coefficients.knn import CosineNeighbors, KnnOptions

WIDTH, CLUSTERS, N = 24, 5, 2000


@pytest.fixture(scope="module")
def subspaces() -> tuple[Tensor, np.ndarray]:
    """Unit-length rows near five three-dimensional subspaces, and which is whose."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLUSTERS, (N,), generator=generator)
    bases = torch.linalg.qr(torch.randn(CLUSTERS, WIDTH, 3, generator=generator)).Q
    inside = torch.einsum("nwd,nd->nw", bases[labels], torch.randn(N, 3, generator=generator))
    noise = 0.05 * torch.randn(N, WIDTH, generator=generator) / WIDTH**0.5
    return F.normalize(F.normalize(inside, dim=1) + noise, dim=1), labels.numpy()


def cluster(
    rows: Rows, size: int | None = None, model: CoefficientModel | None = None, **other: Any
) -> ClusteringResult:
    return cluster_rows(rows, method(size, model, **other), Stages(), Progress())


def method(size: int | None = None, model: CoefficientModel | None = None, **other: Any) -> Method:
    resolved = {
        "model": model or CosineNeighbors(KnnOptions(), WIDTH),
        "clusterer": SpectralClustering(SpectralOptions(), CLUSTERS, 0),
        "top_k": 5,
        "whiten": True,
        "refine": RefineOptions(steps=5),
        "search": SearchOptions(),
        "affinity": AffinityOptions(),
        "dictionary_size": size,
        "seed": 0,
        "device": torch.device("cpu"),
    }
    return Method(**(resolved | other))


@pytest.mark.parametrize("energy", [False, True])
def test_a_sample_finds_the_clusters_that_all_rows_find(
    subspaces: tuple[Tensor, np.ndarray], energy: bool
) -> None:
    rows, labels = subspaces
    model = EnergyNetwork(EnergyOptions(hidden=16), WIDTH) if energy else None
    whole, sample = cluster(HeldRows(rows), None, model), cluster(HeldRows(rows), 400, model)
    assert adjusted_rand_score(labels, whole.labels) > 0.99
    assert adjusted_rand_score(whole.labels, sample.labels) > 0.99
    assert whole.agreement is None
    assert sample.agreement is not None
    assert sample.agreement > 0.99
    assert whole.affinity.shape == (N, N)
    assert sample.affinity.shape == (400, 400)
    assert sample.confidence.shape == (N,)
    assert sample.confidence.mean() > 0.95


class Counts(Clusterer):
    """Returns the number of rows as a label of each, from a graph or from rows."""

    def __init__(self, consumes: Any) -> None:
        self.consumes = consumes

    def fit_predict(self, data: Any) -> np.ndarray:
        return np.full(data.shape[0], data.shape[0])


@pytest.mark.parametrize("consumes", ["affinity", "features"])
@pytest.mark.parametrize("size", [None, 100])
def test_labels_beyond_the_rows_are_refused(
    subspaces: tuple[Tensor, np.ndarray], consumes: str, size: int | None
) -> None:
    rows = HeldRows(subspaces[0][:200])
    with pytest.raises(ComponentError, match=f"the label {size or 200} for {size or 200} rows"):
        cluster(rows, size, clusterer=Counts(consumes))


class Pairs(Clusterer):
    """Puts each two rows into a cluster of their own, however many clusters that makes."""

    consumes: ClassVar[Literal["affinity"]] = "affinity"

    def fit_predict(self, data: Any) -> np.ndarray:
        return np.arange(data.shape[0]) // 2


def test_many_clusters_need_no_more_eigenvectors_than_the_largest_number_tried(
    subspaces: tuple[Tensor, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def embedding(graph: Any, n_clusters: int, *_: Any) -> np.ndarray:
        asked.append(n_clusters)
        return np.eye(graph.shape[0], dtype=np.float32)

    monkeypatch.setattr("ebsc_core.clustering.cluster.graph_embedding", embedding)
    for told in (None, CLUSTERS, 70):
        found = cluster_rows(
            HeldRows(subspaces[0][:200]), method(clusterer=Pairs(), n_clusters=told), Stages(), Progress()
        )
        assert found.labels.max() == 99
    assert asked == [50, 50, 70]


def test_a_clusterer_that_consumes_nothing_known_is_refused(subspaces: tuple[Tensor, np.ndarray]) -> None:
    with pytest.raises(ComponentError, match="clusterer Counts: its consumes must be"):
        cluster(HeldRows(subspaces[0][:200]), clusterer=Counts("rows"))


def recounted(whiten: bool = True) -> Method:
    return method(whiten=whiten, recount=lambda k: SpectralClustering(SpectralOptions(), k, 0))


def test_a_number_that_is_not_given_is_found(subspaces: tuple[Tensor, np.ndarray]) -> None:
    some = HeldRows(subspaces[0][:600])
    found, told = cluster_rows(some, recounted(), Stages(), Progress()), cluster(some)
    assert found.number
    assert found.number.chosen == CLUSTERS
    assert told.number is None
    assert np.array_equal(found.labels, told.labels)
    assert isinstance(found.clusterer, SpectralClustering)
    assert found.clusterer.n_clusters == CLUSTERS


class Halves(Clusterer):
    """Remembers what it was given, and puts its first half into a cluster, the others into another."""

    consumes: ClassVar[Literal["features"]] = "features"
    streams: ClassVar[bool] = False
    given: Any = None

    def fit_predict(self, data: Any) -> np.ndarray:
        self.given = data
        return (np.arange(len(data)) >= len(data) // 2).astype(np.int64)


class Streaming(Halves):
    streams: ClassVar[bool] = True


def test_the_clusterer_is_told_where_the_run_computes(subspaces: tuple[Tensor, np.ndarray]) -> None:
    clusterer, device = Halves(), torch.device("cpu", 0)
    assert clusterer.device != device
    cluster(HeldRows(subspaces[0]), 400, clusterer=clusterer, device=device)
    assert clusterer.device == device


def test_the_sample_keeps_the_clusters_it_was_given(subspaces: tuple[Tensor, np.ndarray]) -> None:
    found = cluster(HeldRows(subspaces[0]), 401, clusterer=Halves())
    assert len(np.unique(found.positions)) == 401
    assert found.assigner.labels.tolist() == [0] * 200 + [1] * 201
    assert found.agreement is not None
    assert found.agreement < 0.9  # such clusters are not those of the rows


def test_a_clusterer_of_rows_is_given_them_as_they_are(subspaces: tuple[Tensor, np.ndarray]) -> None:
    rows = HeldRows(subspaces[0])
    held, streaming = Halves(), Streaming()
    found = cluster(rows, 400, clusterer=held)
    np.testing.assert_array_equal(held.given, subspaces[0][found.positions])
    cluster(rows, clusterer=streaming)
    assert streaming.given is rows


def test_a_clusterer_of_the_graph_costs_no_rows(subspaces: tuple[Tensor, np.ndarray]) -> None:
    taken: list[np.ndarray] = []

    class Counted(HeldRows):
        def take(self, positions: np.ndarray) -> Tensor:
            taken.append(positions)
            return super().take(positions)

    def times(clusterer: Clusterer) -> int:
        """Count how often the dictionary is read."""
        taken.clear()
        found = cluster(Counted(subspaces[0]), 400, clusterer=clusterer)
        return sum(np.array_equal(positions, found.positions) for positions in taken)

    assert times(SpectralClustering(SpectralOptions(), CLUSTERS, 0)) == times(Halves()) - 1


@pytest.mark.parametrize("size", [None, 400])
def test_stored_rows_lead_where_held_rows_lead(
    subspaces: tuple[Tensor, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | None
) -> None:
    path = tmp_path / "rows.h5"
    with h5py.File(path, "w") as file:
        file["features"] = subspaces[0].numpy()
    held = cluster(HeldRows(subspaces[0]), size)
    assert (cluster(StoredRows(path, "features"), size).labels == held.labels).all()
    monkeypatch.setattr(rows_module, "BLOCK_ROWS", 300)
    blocks = cluster(StoredRows(path, "features"), size)
    assert (blocks.labels == held.labels).all()
    np.testing.assert_allclose(blocks.confidence, held.confidence, atol=1e-6)


def test_new_rows_join_as_the_rest_does(subspaces: tuple[Tensor, np.ndarray]) -> None:
    rows = HeldRows(subspaces[0])
    found = cluster(rows, 400)
    labels, confidence = found.assigner.predict(rows)
    rest = np.setdiff1d(np.arange(N), found.positions)
    assert (labels[rest] == found.labels[rest]).all()
    assert (confidence[rest] == found.confidence[rest]).all()


def test_the_seed_decides_the_sample(subspaces: tuple[Tensor, np.ndarray]) -> None:
    rows = HeldRows(subspaces[0])
    first, same, other = (cluster(rows, 100, seed=seed) for seed in (0, 0, 1))
    assert (first.positions == same.positions).all()
    assert (first.labels == same.labels).all()
    assert (first.positions != other.positions).any()
