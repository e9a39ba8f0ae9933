"""What one does with the clusters of an estimator: it is what the command line does."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from ebsc_core import EBSC, EbscError, EnergySubspaceClustering

IMAGES = load_digits().images / 16
FLAGS = {"backbone": "identity", "epochs": 0, "coefficients": "knn", "cache": "none"}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> EBSC:
    return EBSC(6, **FLAGS).fit(IMAGES[:150])


@pytest.fixture
def model(fitted: EBSC) -> EBSC:
    return pickle.loads(pickle.dumps(fitted))


def test_decisions_count_in_predict_and_not_in_labels(ebsc, model: EBSC) -> None:
    before, later = model.labels_.copy(), model.predict(IMAGES[150:250])
    two, four = model.labels_[[(before == 2).argmax(), (before == 4).argmax()]]
    model.name_clusters({two: "herbs"}).merge_clusters(four, two)
    assert (model.labels_ == before).all()
    assert (model.curated_labels_ == np.where(before == 4, 2, before)).all()
    assert (model.predict(IMAGES[150:250]) == np.where(later == 4, 2, later)).mean() > 0.95
    assert 4 not in model.predict(IMAGES[150:250])
    model.split_cluster(two, into=3)
    assert set(model.curated_labels_) == {0, 1, 2, 3, 5, 6, 7}
    again = pickle.loads(pickle.dumps(model))
    assert (again.curated_labels_ == model.curated_labels_).all()
    assert again.cluster_names_ == {2: "herbs"}
    assert "2 herbs, " in str(again.cluster_tree())
    assert "herbs" in ebsc("name", model.run_dir_).out
    model.move_images([0, 1], None).move_images([2], "herbs")
    assert model.curated_labels_[:3].tolist() == [-1, -1, 2]
    for _ in range(5):
        model.undo_decision()
    assert (model.curated_labels_ == before).all()
    with pytest.raises(ValueError, match="nothing was decided"):
        model.undo_decision()


def test_memberships_are_shares(model: EBSC) -> None:
    shares = model.memberships().toarray()
    assert shares.shape == (150, 6)
    assert np.allclose(shares.sum(axis=1), 1)
    assert (shares.argmax(axis=1) == model.labels_).mean() > 0.9


def test_images_in_memory_are_exported(model: EBSC, tmp_path: Path) -> None:
    said = "images of the run were in memory, and are in no known file; give the images of `fit` as `X`"
    with pytest.raises(EbscError, match=said):
        model.export(tmp_path / "new")
    with pytest.raises(ValueError, match="give the images of `fit`"):
        model.export(tmp_path / "new", IMAGES[:10])
    model.export(tmp_path / "new", IMAGES[:150], typical=2, sheets=True)
    written = list((tmp_path / "new/clusters").rglob("*.png"))
    assert len(written) == 150
    assert np.allclose(
        np.asarray(Image.open(tmp_path / f"new/clusters/{model.labels_[7]}/7.png")) / 255,
        IMAGES[7],
        atol=0.01,
    )
    with pytest.raises(ValueError, match="there already"):
        model.export(tmp_path / "new", IMAGES[:150])


def test_a_command_takes_images_of_memory_that_were_saved(ebsc, model: EBSC, tmp_path: Path) -> None:
    refused = ebsc("export", model.run_dir_, "--out", "new")
    said = "the images of the run were in memory, and are in no known file; --data says where they are now"
    assert (refused.code, refused.err) == (2, f"ebsc: error: {said}\n")
    np.save(tmp_path / "saved.npy", (IMAGES[:150] * 255).astype(np.uint8))
    assert ebsc("export", model.run_dir_, "--out", "new", "--data", "saved.npy").code == 0
    assert len(list((tmp_path / "new/clusters").rglob("*.png"))) == 150


def test_a_folder_may_begin_with_a_tilde(
    model: EBSC, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model.export("~flowers", IMAGES[:150])
    assert (tmp_path / "~flowers/clusters").is_dir()


def test_rows_have_a_tree_and_shares() -> None:
    model = EnergySubspaceClustering(5, coefficients="knn", dictionary_size=100, random_state=0)
    model.fit(IMAGES[:150].reshape(150, -1))
    shares = model.memberships()
    assert shares.shape == (150, 5)
    assert (np.flatnonzero(shares.getnnz(axis=1)) == model.dictionary_indices_).all()
    assert model.cluster_tree().nodes[-1].size == 150
