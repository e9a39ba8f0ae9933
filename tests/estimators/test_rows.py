"""EnergySubspaceClustering on real features, as a user of scikit-learn would have it."""

from __future__ import annotations

import csv
import pickle
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ebsc_core import EbscError, EnergySubspaceClustering

QUICK = {"refine.steps": 20}


def estimator(n_clusters: int = 10, **given: Any) -> EnergySubspaceClustering:
    return EnergySubspaceClustering(n_clusters, **({"settings": QUICK, "random_state": 0} | given))


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    return X[:600], y[:600]


def test_it_gives_what_the_command_gives(ebsc, tmp_path: Path, digits) -> None:
    X, y = digits
    np.save(tmp_path / "x.npy", X)
    words = ("--n-clusters", "10", "--seed", "3", "--set", "refine.steps=20", "--out", "run")
    done = ebsc("cluster", "x.npy", *words)
    assert done.code == 0, done.err
    with (tmp_path / "run/assignments.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    found = estimator(random_state=3).fit(X)
    assert found.labels_.tolist() == [int(line["cluster"]) for line in lines]
    np.testing.assert_allclose(found.confidence_, [float(line["confidence"]) for line in lines], atol=1e-4)
    kept = sparse.load_npz(tmp_path / "run/affinity.npz")
    np.testing.assert_allclose(found.affinity_matrix_.toarray(), kept.toarray(), atol=1e-6)
    assert adjusted_rand_score(y, found.labels_) > 0.7


def test_new_rows_join_and_the_old_stay_where_they_were(digits) -> None:
    X, y = digits
    found = estimator().fit(X[:500])
    labels, confidence = found.predict(X[500:], return_confidence=True)
    assert adjusted_rand_score(y[500:], labels) > 0.5
    assert ((confidence > 0) & (confidence <= 1 + 1e-6)).all()
    assert (found.predict(X[:500]) == found.labels_).mean() > 0.95


@pytest.mark.parametrize("given", [{}, {"coefficients": "omp"}, {"dictionary_size": 200}, {"whiten": True}])
def test_pickled_it_predicts_the_same(digits, given: dict[str, Any]) -> None:
    X, _ = digits
    found = estimator(**given).fit(X[:400])
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.predict(X), found.predict(X))
    np.testing.assert_array_equal(again.labels_, found.labels_)


def test_a_dictionary_is_clustered_and_the_others_join(digits) -> None:
    X, y = digits
    found = estimator(dictionary_size=300).fit(X)
    assert found.affinity_matrix_.shape == (300, 300)
    assert found.dictionary_indices_.shape == (300,)
    assert found.labels_.shape == (600,)
    assert adjusted_rand_score(y, found.labels_) > 0.6


def test_the_number_of_clusters_is_found_if_nobody_says_it() -> None:
    draws = np.random.default_rng(0)
    bases = np.linalg.qr(draws.normal(size=(4, 30, 3))).Q
    X = (draws.normal(size=(4, 60, 3)) @ bases.transpose(0, 2, 1)).reshape(240, 30)
    found = estimator("auto").fit(X)
    assert found.n_clusters_ == 4
    assert adjusted_rand_score(np.arange(240) // 60, found.labels_) > 0.95
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found)).predict(X), found.predict(X))


def test_it_stands_in_a_pipeline_and_a_search(digits) -> None:
    X, y = digits
    pipeline = make_pipeline(StandardScaler(), estimator())
    labels = pipeline.fit_predict(X)
    np.testing.assert_array_equal(labels, estimator().fit_predict(StandardScaler().fit_transform(X)))
    grid = {"energysubspaceclustering__n_clusters": np.arange(6, 11, 4)}
    search = GridSearchCV(pipeline, grid, scoring="adjusted_rand_score", cv=2, error_score="raise")
    assert search.fit(X, y).best_params_ == {"energysubspaceclustering__n_clusters": 10}
    assert search.best_estimator_.predict(X).shape == (600,)


def test_the_same_seed_gives_the_same_and_no_generator_is_disturbed(digits) -> None:
    X, _ = digits
    torch.manual_seed(7)
    np.random.seed(7)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(7)
    np.random.seed(7)
    precision = torch.get_float32_matmul_precision()
    one = estimator().fit(X[:200])
    torch.testing.assert_close(torch.rand(3), expected[0])
    np.testing.assert_array_equal(np.random.rand(3), expected[1])
    assert torch.get_float32_matmul_precision() == precision
    two = clone(one).fit(X[:200])
    np.testing.assert_array_equal(one.labels_, two.labels_)
    np.testing.assert_array_equal(one.predict(X), two.predict(X))
    np.random.seed(7)
    drawn = [estimator(random_state=None, settings={"refine.steps": 1}) for _ in range(2)]
    first, second = (model.fit(X[:200]).affinity_matrix_ for model in drawn)
    assert abs(first - second).max() > 0


def test_a_seed_in_the_settings_counts(digits) -> None:
    X = digits[0][:300]
    asked, same = (estimator(random_state=None, settings={"seed": 3}).fit(X).labels_ for _ in range(2))
    np.testing.assert_array_equal(asked, same)
    np.testing.assert_array_equal(asked, estimator(random_state=3, settings={}).fit(X).labels_)


def test_fits_in_several_threads_do_not_mix_their_seeds(digits) -> None:
    X, _ = digits
    models = [estimator(random_state=seed) for seed in (0, 1, 0, 1)]
    with ThreadPoolExecutor(4) as pool:
        graphs = [model.affinity_matrix_ for model in pool.map(lambda model: model.fit(X[:200]), models)]
    alone = estimator(random_state=1).fit(X[:200]).affinity_matrix_
    assert abs(graphs[0] - graphs[2]).max() == abs(graphs[1] - graphs[3]).max() == 0
    assert abs(graphs[1] - alone).max() == 0
    assert abs(graphs[0] - graphs[1]).max() > 0


def test_it_tells_what_it_does_only_if_asked(digits, capsys: pytest.CaptureFixture[str]) -> None:
    X, _ = digits
    estimator().fit(X[:100])
    assert capsys.readouterr() == ("", "")
    estimator(verbose=True).fit(X[:100])
    assert "refine coefficients: 20 steps" in capsys.readouterr().out


def test_warnings_are_pythons(digits) -> None:
    with pytest.warns(UserWarning, match=r"Birch found \d+ clusters, not 4"):
        estimator(4, clusterer="Birch", settings={"clusterer.threshold": 5.0}).fit(digits[0][:50])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"n_clusters": 1},
            "option 'n_clusters': input should be a whole number from 2 on, or 'auto', got 1",
        ),
        ({"n_clusters": 90}, "n_clusters is 90 but X has only 60 rows"),
        ({"coefficients": "enrgy"}, "unknown coefficient model 'enrgy': did you mean energy"),
        ({"clusterer": "nothing"}, "unknown clusterer 'nothing'"),
        ({"top_k": 60}, "each of 60 rows has only 59 others"),
        ({"dictionary_size": 60}, "dictionary_size is 60 but there are 60 rows"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"settings": {"refine.step": 3}}, "unknown option 'refine.step': did you mean 'refine.steps'?"),
        ({"settings": {"train": {"epochs": 3}}}, "'train' says nothing; leave it out"),
        ({"settings": {"cache": "x"}}, "'cache' has no effect"),
        ({"settings": {"out": "x"}}, "'out' has no effect"),
        ({"settings": {"n_clusters": 3}}, "'n_clusters' has no effect in settings"),
        ({"settings": {"features.path": "x.npy"}}, "'features.path' has no effect: the rows are X"),
        ({"settings": {"features": {"array": "x"}}}, "'features.array' has no effect: the rows are X"),
        ({"settings": {"seed": 5}}, "'seed' in settings has no effect beside random_state"),
        (
            {"settings": {"coefficients.name": "knn"}, "coefficients": "energy"},
            "'coefficients.name' in settings has no effect beside coefficients; give one of the two",
        ),
        ({"settings": "refine.steps=3"}, "settings must be a dictionary"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_mistake_is_one_line_and_a_value_error(digits, given: dict[str, Any], said: str) -> None:
    with pytest.raises(EbscError) as error:
        estimator(**given).fit(digits[0][:60])
    assert isinstance(error.value, ValueError)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "--" not in str(error.value)


def test_what_cannot_be_rows_is_refused(digits) -> None:
    X, _ = digits
    with pytest.raises(NotFittedError):
        estimator().predict(X)
    for bad in (X[0], X[:1], np.full((5, 3), np.nan), X[:, :0]):
        with pytest.raises(ValueError, match=r"sample|NaN|1D|feature"):
            estimator().fit(bad)
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        estimator().fit(sparse.csr_matrix(X))
    fitted = estimator().fit(X[:100])
    with pytest.raises(ValueError, match="X has 60 features, but"):
        fitted.predict(X[:, :60])


def test_rows_that_lie_backwards_in_memory_are_rows(digits) -> None:
    images, _ = digits
    backwards = images[:60, ::-1]
    found = estimator(3, coefficients="knn", random_state=0).fit(backwards).labels_
    same = estimator(3, coefficients="knn", random_state=0).fit(backwards.copy()).labels_
    assert (found == same).all()


def test_x_is_not_changed_and_rows_count_by_direction(digits) -> None:
    X, _ = digits
    before = X.copy()
    found = estimator().fit(X[:200])
    np.testing.assert_array_equal(X, before)
    scale = np.random.default_rng(0).uniform(0.5, 2, size=(200, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert adjusted_rand_score(found.labels_, estimator().fit_predict(X[:200] * scale)) > 0.95


@pytest.mark.parametrize("scale", [1e-20, 1e20, 1e30])
def test_the_length_of_rows_does_not_matter(digits, scale: float) -> None:
    X = digits[0][:200].astype(np.float32)
    plain = estimator(coefficients="knn").fit(X)
    scaled = estimator(coefficients="knn").fit(X * np.float32(scale))
    assert adjusted_rand_score(plain.labels_, scaled.labels_) == 1
    assert np.array_equal(plain.predict(X), plain.predict(X * np.float32(scale)))


@contextmanager
def default_type() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "switch",
    [
        default_type,
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", torch.bfloat16),
    ],
    ids=["default type", "no gradient", "inference mode", "autocast"],
)
def test_the_switches_of_the_caller_do_not_matter(digits, switch: Any) -> None:
    X = digits[0][:150].astype(np.float32)
    plain = estimator().fit(X)
    expected = plain.labels_, plain.predict(X)
    with switch():
        before = switches()
        model = estimator().fit(X)
        found = model.labels_, model.predict(X)
        assert switches() == before
    assert all(map(np.array_equal, expected, found))


def switches() -> tuple[Any, ...]:
    return (
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
    )


@pytest.mark.parametrize("coefficients", ["energy", "knn"])
@pytest.mark.parametrize("n", range(2, 7))
def test_few_rows_have_as_many_clusters_as_are_asked_for(n: int, coefficients: str) -> None:
    X = np.random.default_rng(n).normal(size=(n, 5))
    for k in range(2, n + 1):
        labels = estimator(k, coefficients=coefficients, settings={}).fit_predict(X)
        assert len(set(labels)) == k
