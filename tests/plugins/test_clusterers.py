from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from ebsc_core.clustering.affinity import symmetrized
from ebsc_core.clustering.coefficients import self_expressive_coefficients
from ebsc_core.data.features.rows import StoredRows
from ebsc_core.plugins.interfaces import Clusterer
from ebsc_core.plugins.registry import Kind, Registry
from ebsc_core.plugins.selection import check_options
from ebsc_core.utils.errors import ConfigError
from ebsc_plugins.clusterers import k_subspaces as k_subspaces_module
from ebsc_plugins.clusterers.k_subspaces import KSubspaces, KSubspacesOptions
from ebsc_plugins.clusterers.spectral import SpectralClustering, SpectralOptions
from ebsc_plugins.coefficients.knn import CosineNeighbors, KnnOptions


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry()


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def blobs(n: int = 120, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rows, truth = make_blobs(n, n_features=6, centers=k, cluster_std=0.6, random_state=0)
    return unit(rows), truth


def graph_of(rows: np.ndarray, top_k: int = 6) -> sparse.csr_matrix:
    model = CosineNeighbors(KnnOptions(), rows.shape[1])
    return symmetrized(self_expressive_coefficients(model, torch.from_numpy(rows), top_k))


def blocks(sizes: list[int]) -> tuple[sparse.csr_matrix, np.ndarray]:
    rng = np.random.default_rng(0)
    parts = [np.triu(rng.random((size, size)), 1) for size in sizes]
    graph = sparse.block_diag([part + part.T for part in parts], format="csr")
    return sparse.csr_matrix(graph.astype(np.float32)), np.repeat(np.arange(len(sizes)), sizes)


def spectral(k: int, seed: int = 0, **options: Any) -> SpectralClustering:
    return SpectralClustering(SpectralOptions(**options), k, seed)


@pytest.mark.parametrize(("vectors_per_cluster", "power"), [(1, 0.0), (1, 20.0), (4, 20.0), (4, None)])
def test_spectral_separates_disconnected_blocks(vectors_per_cluster: int, power: float | None) -> None:
    graph, truth = blocks([20, 30, 10, 25, 40, 15])
    labels = spectral(6, vectors_per_cluster=vectors_per_cluster, power=power).fit_predict(graph)
    assert adjusted_rand_score(truth, labels) == 1
    assert labels.dtype == np.int64


def test_spectral_separates_blobs_by_their_neighbors() -> None:
    rows, truth = blobs()
    assert adjusted_rand_score(truth, spectral(4).fit_predict(graph_of(rows))) == 1


def test_spectral_reports_eigenvalues_and_convergence() -> None:
    graph, _ = blocks([60, 60, 60])
    clusterer = spectral(3)
    clusterer.fit_predict(graph)
    assert len(clusterer.eigenvalues_) == 12
    assert (np.diff(clusterer.eigenvalues_) <= 1e-6).all()
    assert clusterer.warnings_ == []
    strict = spectral(3, tolerance=1e-12)
    strict.fit_predict(blocks([400, 400, 400])[0])
    assert "not fully converged" in strict.warnings_[0]


def test_spectral_puts_every_node_somewhere_though_some_have_no_edges() -> None:
    graph = sparse.block_diag([blocks([20, 30])[0], np.zeros((5, 5))], format="csr")
    labels = spectral(2).fit_predict(sparse.csr_matrix(graph.astype(np.float32)))
    assert set(labels) == {0, 1}
    assert adjusted_rand_score(np.repeat([0, 1], [20, 30]), labels[:50]) == 1


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("n", [2, 3, 5])
def test_spectral_takes_tiny_graphs(n: int) -> None:
    graph = sparse.csr_matrix((1 - np.eye(n)).astype(np.float32))
    assert len(spectral(2).fit_predict(graph)) == n


def subspaces(noise: float = 0.02, k: int = 5, d: int = 3, width: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    bases = [np.linalg.qr(rng.normal(size=(width, d)))[0] for _ in range(k)]
    rows = np.concatenate([rng.normal(size=(50, d)) @ basis.T for basis in bases])
    return unit(rows + noise * rng.normal(size=rows.shape)), np.repeat(np.arange(k), 50)


def k_subspaces(k: int, seed: int = 0, **options: int) -> KSubspaces:
    return KSubspaces(KSubspacesOptions(**{"dimension": 3} | options), k, seed)


def test_k_subspaces_recovers_noisy_subspaces() -> None:
    rows, truth = subspaces()
    clusterer = k_subspaces(5)
    labels = clusterer.fit_predict(rows)
    assert adjusted_rand_score(truth, labels) > 0.99
    assert 0.98 < clusterer.captured_ <= 1 + 1e-5
    assert labels.dtype == np.int64


def test_the_captured_length_is_that_of_a_pca_of_each_cluster() -> None:
    rows, _ = subspaces()
    clusterer = k_subspaces(5)
    labels = clusterer.fit_predict(rows)
    captured = sum((np.linalg.svd(rows[labels == k], compute_uv=False)[:3] ** 2).sum() for k in range(5))
    assert clusterer.captured_ == pytest.approx(captured / len(rows), abs=2e-3)


def test_more_rounds_never_capture_less() -> None:
    rows = unit(np.random.default_rng(0).normal(size=(120, 10)))
    captured = []
    for max_rounds in (1, 2, 3, 5, 8, 13, 50):
        clusterer = k_subspaces(4, max_rounds=max_rounds, restarts=1)
        clusterer.fit_predict(rows)
        captured.append(clusterer.captured_)
    assert (np.diff(captured) >= -1e-6).all()
    assert captured[-1] > captured[0]


def test_more_restarts_never_capture_less() -> None:
    rows = unit(np.random.default_rng(0).normal(size=(120, 10)))
    few, many = k_subspaces(4, restarts=1), k_subspaces(4, restarts=8)
    few.fit_predict(rows)
    many.fit_predict(rows)
    assert many.captured_ >= few.captured_ - 1e-6


def test_k_subspaces_is_decided_by_its_seed() -> None:
    rows = unit(np.random.default_rng(0).normal(size=(150, 10)))
    first = k_subspaces(4, seed=1, restarts=2).fit_predict(rows)
    assert (first == k_subspaces(4, seed=1, restarts=2).fit_predict(rows)).all()
    assert (first != k_subspaces(4, seed=2, restarts=2).fit_predict(rows)).any()


def test_the_sign_of_a_row_does_not_matter() -> None:
    rows, truth = subspaces()
    rows[::3] *= -1
    assert adjusted_rand_score(truth, k_subspaces(5).fit_predict(rows)) > 0.99


@pytest.mark.parametrize("dimension", [20, 21])
def test_a_subspace_as_wide_as_the_rows_is_refused(dimension: int) -> None:
    with pytest.raises(ConfigError, match=r"clusterer\.dimension .* 20"):
        k_subspaces(5, dimension=dimension).fit_predict(subspaces()[0])


def test_every_cluster_gets_rows() -> None:
    """Two subspaces shared by eight clusters: some run empty on the way."""
    rows, _ = subspaces(noise=0.05, k=2)
    assert len(np.unique(k_subspaces(8, restarts=2).fit_predict(rows))) == 8


@pytest.mark.parametrize("k", [4, 6])
def test_more_clusters_than_distinct_rows_are_survived(k: int) -> None:
    rows = unit(np.repeat(np.random.default_rng(0).normal(size=(3, 8)), 2, axis=0))
    labels = k_subspaces(k, restarts=2).fit_predict(rows)
    assert ((labels >= 0) & (labels < k)).all()
    assert len(np.unique(labels)) >= 3


@pytest.fixture
def mini_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than 500 rows are many, and a mini-batch is 400."""
    monkeypatch.setattr(k_subspaces_module, "ALL_AT_ONCE", 500)
    monkeypatch.setattr(k_subspaces_module, "DRAWN", 3000)
    monkeypatch.setattr(k_subspaces_module, "BATCH", 400)


def many_rows(noise: float) -> tuple[np.ndarray, np.ndarray]:
    """4,000 rows by cluster: blocks of them as they are stored hold one or two of the five."""
    rng = np.random.default_rng(1)
    bases = [np.linalg.qr(rng.normal(size=(20, 3)))[0] for _ in range(5)]
    rows = np.concatenate([rng.normal(size=(800, 3)) @ basis.T for basis in bases])
    return unit(rows + noise * rng.normal(size=rows.shape)).astype(np.float32), np.repeat(np.arange(5), 800)


@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_mini_batches_find_what_all_rows_at_once_find(noise: float, request: pytest.FixtureRequest) -> None:
    rows, truth = many_rows(noise)
    whole, batches = k_subspaces(5), k_subspaces(5)
    expected = whole.fit_predict(rows)
    request.getfixturevalue("mini_batches")
    found = batches.fit_predict(rows)
    assert adjusted_rand_score(expected, found) > 0.98
    assert adjusted_rand_score(truth, found) > (0.99 if noise < 0.1 else 0.7)
    assert batches.captured_ > 0.999 * whole.captured_


@pytest.mark.usefixtures("mini_batches")
def test_rows_in_a_file_are_clustered_like_rows_in_memory(tmp_path: Path) -> None:
    rows, _ = many_rows(0.1)
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["features"] = rows
    first = k_subspaces(5, restarts=4).fit_predict(rows)
    second = k_subspaces(5, restarts=4).fit_predict(StoredRows(tmp_path / "rows.h5", "features"))
    assert adjusted_rand_score(first, second) > 0.999  # the rounding of their lengths


@pytest.mark.usefixtures("mini_batches")
@pytest.mark.parametrize("restarts", [1, 2, 5])
def test_mini_batches_are_decided_by_their_seed(restarts: int) -> None:
    rows = unit(np.random.default_rng(0).normal(size=(1000, 10)))
    first = k_subspaces(4, seed=1, restarts=restarts).fit_predict(rows)
    assert (first == k_subspaces(4, seed=1, restarts=restarts).fit_predict(rows)).all()
    assert (first != k_subspaces(4, seed=2, restarts=restarts).fit_predict(rows)).any()


@pytest.mark.usefixtures("mini_batches")
def test_mini_batches_give_every_cluster_rows() -> None:
    rows = np.concatenate([subspaces(noise=0.05, k=2)[0]] * 8)
    assert len(np.unique(k_subspaces(8, restarts=2).fit_predict(rows))) == 8


@pytest.mark.usefixtures("mini_batches")
@pytest.mark.parametrize("remainder", [1, 3, 7])
def test_rows_beyond_the_last_whole_mini_batch_start_no_subspace_again(remainder: int) -> None:
    rows, truth = many_rows(0.02)
    chosen = np.random.default_rng(0).permutation(len(rows))[: 2000 + remainder]
    clusterer, whole = k_subspaces(5), k_subspaces(5)
    assert adjusted_rand_score(truth[chosen], clusterer.fit_predict(rows[chosen])) > 0.99
    whole.fit_predict(rows[chosen[:2000]])
    assert clusterer.captured_ == pytest.approx(whole.captured_, rel=1e-3)


def build(registry: Registry, name: str, k: int = 4, seed: int = 0, **options: Any) -> Clusterer:
    part = registry.find(Kind.CLUSTERER, name)
    return part.factory(check_options(part, options, "clusterer"), k, seed)


@pytest.mark.parametrize("name", ["KMeans", "AgglomerativeClustering", "Birch", "BisectingKMeans"])
def test_scikit_learn_clusterers_by_name(registry: Registry, name: str) -> None:
    rows, truth = blobs()
    clusterer = build(registry, name, **({"threshold": 0.1} if name == "Birch" else {}))
    assert clusterer.consumes == "features"
    assert adjusted_rand_score(truth, clusterer.fit_predict(rows)) > 0.95


def test_spellings_of_a_name_mean_the_same(registry: Registry) -> None:
    rows = unit(np.random.default_rng(0).normal(size=(100, 5)))
    labels = [build(registry, name, seed=3).fit_predict(rows) for name in ("KMeans", "kmeans", "k-means")]
    assert (labels[0] == labels[1]).all()
    assert (labels[0] == labels[2]).all()


def test_noise_stays_minus_one(registry: Registry) -> None:
    rows, truth = blobs()
    far = unit(np.eye(6, dtype=np.float32)[:2] * -1 + 0.3)
    labels = build(registry, "HDBSCAN", min_cluster_size=15).fit_predict(np.concatenate([rows, far]))
    assert (labels[-2:] == -1).all()
    kept = labels[:-2] >= 0
    assert adjusted_rand_score(truth[kept], labels[:-2][kept]) > 0.95
    assert labels.dtype == np.int64


@pytest.mark.parametrize(
    ("name", "options", "finds_number"),
    [
        ("HDBSCAN", {}, True),
        ("MeanShift", {}, True),
        ("KMeans", {}, False),
        ("AgglomerativeClustering", {}, False),
        ("AgglomerativeClustering", {"distance_threshold": 1.0}, True),
    ],
)
def test_scikit_learn_clusterers_that_find_the_number(
    registry: Registry, name: str, options: dict[str, Any], finds_number: bool
) -> None:
    found = [build(registry, name, k, **options) for k in (2, 9)]
    assert [clusterer.finds_number for clusterer in found] == [finds_number] * 2
    few, many = (clusterer.fit_predict(blobs()[0]) for clusterer in found)
    assert (few == many).all() == finds_number
    assert not any("found" in warning for clusterer in found for warning in clusterer.warnings_)


def test_scikit_learns_spectral_clustering_is_given_the_affinity(registry: Registry) -> None:
    rows, truth = blobs()
    graph = sparse.csr_matrix(graph_of(rows) + 1e-4 * graph_of(rows, 100))  # connected
    clusterer = build(registry, "SpectralClustering")
    assert clusterer.consumes == "affinity"
    assert adjusted_rand_score(truth, clusterer.fit_predict(graph)) == 1
    assert build(registry, "SpectralClustering", affinity="rbf").consumes == "features"


def test_what_the_clusterer_complains_of_is_passed_on(registry: Registry) -> None:
    clusterer = build(registry, "Birch", k=4, threshold=5.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clusterer.fit_predict(blobs()[0])
    assert "Decrease the threshold" in clusterer.warnings_[0]
    assert "\n" not in clusterer.warnings_[0]


def test_an_unknown_option_is_named(registry: Registry) -> None:
    with pytest.raises(ConfigError, match=r"clusterer\.n_innit.*n_init"):
        build(registry, "KMeans", n_innit=3)


@pytest.mark.parametrize("option", ["n_clusters", "random_state"])
def test_what_the_run_decides_is_no_option(registry: Registry, option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        build(registry, "KMeans", **{option: 3})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("KMeans", {"n_init": -3}),
        ("KMeans", {"algorithm": "fast"}),
        ("Birch", {"threshold": "wide"}),
        ("HDBSCAN", {"min_cluster_size": 10_000}),
    ],
)
def test_an_impossible_value_is_one_line(registry: Registry, name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        build(registry, name, **options).fit_predict(blobs()[0])
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["DBSCAN", "AgglomerativeClustering"])
def test_precomputed_distances_are_refused(registry: Registry, name: str) -> None:
    with pytest.raises(ConfigError, match="distances"):
        build(registry, name, metric="precomputed")


def test_a_clusterer_of_columns_is_not_offered(registry: Registry) -> None:
    with pytest.raises(Exception, match="FeatureAgglomeration"):
        registry.find(Kind.CLUSTERER, "FeatureAgglomeration")


def test_every_clusterer_offered_can_be_set_up_without_a_warning() -> None:
    from ebsc_plugins.clusterers import scikit_learn

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in scikit_learn.names():
            spec = scikit_learn.resolve(name)
            assert spec is not None
            assert spec.factory(spec.options(), 3, 0).consumes in ("affinity", "features")
