"""No result depends on what a caller has switched on in torch, or on the memory that arrays are in."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits

from ebsc_core import EBSC, EnergySubspaceClustering

N, FITTED = 90, 60
PIXELS = np.rint(load_digits().images[:N] * (255 / 16)).astype(np.uint8)
FLOATS = torch.from_numpy(PIXELS / 255)
ROWS = PIXELS.reshape(N, -1).astype(np.float32)

Switch = Callable[[], AbstractContextManager[Any]]


@contextmanager
def switched(switch: Callable[[Any], object], on: Any, off: Any) -> Iterator[None]:
    switch(on)
    try:
        yield
    finally:
        switch(off)


SWITCHES: dict[str, Switch] = {
    "default type": lambda: switched(torch.set_default_dtype, torch.float64, torch.float32),
    "half by default": lambda: switched(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "no gradient": torch.no_grad,
    "no gradient from now on": lambda: switched(torch.set_grad_enabled, False, True),
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default device": lambda: torch.device("meta"),
    "default device from now on": lambda: switched(torch.set_default_device, "meta", None),
}


@contextmanager
def all_of_them() -> Iterator[None]:
    with ExitStack() as stack:
        for switch in SWITCHES.values():
            stack.enter_context(switch())
        yield


def state() -> tuple[Any, ...]:
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
    )


def images_estimator(**given: Any) -> EBSC:
    settings = {"refine.steps": 5}
    return EBSC(5, **({"backbone": "identity", "epochs": 0, "cache": "none", "settings": settings} | given))


def rows_estimator(**given: Any) -> EnergySubspaceClustering:
    return EnergySubspaceClustering(5, **({"settings": {"refine.steps": 5}, "random_state": 0} | given))


@pytest.fixture(scope="module")
def images_fitted(tmp_path_factory: pytest.TempPathFactory) -> EBSC:
    return images_estimator(run_dir=tmp_path_factory.mktemp("run") / "run").fit(PIXELS[:FITTED])


@pytest.fixture(scope="module")
def rows_fitted() -> EnergySubspaceClustering:
    return rows_estimator().fit(ROWS[:FITTED])


def told(result: Any) -> np.ndarray:
    """Return records as an array of their text, with all digits."""
    return np.array([repr(result)])


def decided(fitted: EBSC) -> np.ndarray:
    """Split a cluster, and take that back."""
    fitted.split_cluster(int(np.bincount(fitted.labels_).argmax()), into=2)
    try:
        return fitted.curated_labels_
    finally:
        fitted.undo_decision()


def of_images(fitted: EBSC) -> dict[str, Callable[[], Any]]:
    """Everything that an estimator of images computes or reads."""
    return {
        "fit": lambda: images_estimator().fit(PIXELS[:FITTED]).labels_,
        "fit floats": lambda: images_estimator().fit(FLOATS[:FITTED]).labels_,
        "fit_predict": lambda: images_estimator().fit_predict(PIXELS[:FITTED]),
        "fit_transform": lambda: images_estimator().fit_transform(PIXELS[:FITTED]),
        "predict": lambda: fitted.predict(PIXELS, return_confidence=True),
        "predict after load": lambda: EBSC.load(fitted.run_dir_).predict(PIXELS, return_confidence=True),
        "predict of a pickle": lambda: pickle.loads(pickle.dumps(fitted)).predict(PIXELS),
        "transform": lambda: fitted.transform(PIXELS),
        "embedding_": lambda: fitted.embedding_,
        "affinity_": lambda: fitted.affinity_.toarray(),
        "find_duplicates": lambda: told(fitted.find_duplicates(PIXELS[:FITTED])),
        "find_outliers": lambda: told(fitted.find_outliers(5)),
        "find_similar": lambda: told(fitted.find_similar(3, 5)),
        "memberships": lambda: fitted.memberships().toarray(),
        "cluster_tree": lambda: told(fitted.cluster_tree()),
        "decisions": lambda: decided(fitted),
        "clone": lambda: clone(fitted).set_params(run_dir=None).fit(PIXELS[:FITTED]).confidence_,
    }


def of_rows(fitted: EnergySubspaceClustering) -> dict[str, Callable[[], Any]]:
    """Everything that an estimator of rows computes, at once or later."""
    return {
        "fit": lambda: rows_estimator().fit(ROWS[:FITTED]).affinity_matrix_.toarray(),
        "fit with a dictionary": lambda: rows_estimator(dictionary_size=40).fit(ROWS[:FITTED]).labels_,
        "fit a number": lambda: rows_estimator().set_params(n_clusters="auto").fit_predict(ROWS[:FITTED]),
        "fit_predict": lambda: rows_estimator().fit_predict(ROWS[:FITTED]),
        "predict": lambda: fitted.predict(ROWS, return_confidence=True),
        "predict of a pickle": lambda: pickle.loads(pickle.dumps(fitted)).predict(ROWS),
        "predict doubles": lambda: fitted.predict(ROWS.astype(float)),
        "find_duplicates": lambda: told(fitted.find_duplicates()),
        "find_outliers": lambda: told(fitted.find_outliers(5)),
        "find_similar": lambda: fitted.find_similar(ROWS[3:4], 5),
        "memberships": lambda: fitted.memberships().toarray(),
        "cluster_tree": lambda: told(fitted.cluster_tree()),
    }


@pytest.fixture(scope="module")
def computed(
    images_fitted: EBSC, rows_fitted: EnergySubspaceClustering
) -> dict[str, tuple[Callable[[], Any], Any]]:
    """Everything that the estimators compute, as a function and as its result without any switch."""
    work = {f"images: {name}": do for name, do in of_images(images_fitted).items()}
    work |= {f"rows: {name}": do for name, do in of_rows(rows_fitted).items()}
    return {name: (do, do()) for name, do in work.items()}


@pytest.mark.filterwarnings("ignore:no number of clusters is stable")
@pytest.mark.parametrize("switch", [*SWITCHES, "all"])
def test_the_switches_of_the_caller_change_nothing(
    computed: dict[str, tuple[Callable[[], Any], Any]], switch: str
) -> None:
    for name, (do, expected) in computed.items():
        with SWITCHES.get(switch, all_of_them)():
            before = state()
            found = do()
            assert state() == before, name
        for one, other in zip(*map(in_parts, (found, expected)), strict=True):
            assert one.dtype == other.dtype, name
            np.testing.assert_array_equal(one, other, err_msg=name)


def in_parts(result: Any) -> tuple[np.ndarray, ...]:
    return result if isinstance(result, tuple) else (result,)


def test_nor_do_they_change_a_training() -> None:
    model = images_estimator(backbone="resnet10t", epochs=1, batch_size=20)
    plain = model.fit(PIXELS[:40])
    expected = plain.transform(PIXELS), plain.predict(PIXELS)
    with all_of_them():
        again = clone(model).fit(PIXELS[:40])
        found = again.transform(PIXELS), again.predict(PIXELS)
    assert all(map(np.array_equal, found, expected))


@pytest.mark.parametrize("kind", ["mapped", "read-only", "big-endian", "backwards", "every other"])
def test_arrays_may_lie_in_any_memory(
    tmp_path: Path, images_fitted: EBSC, rows_fitted: EnergySubspaceClustering, kind: str
) -> None:
    """They are not written to either, and no warning of torch is let through."""

    def as_kind(values: np.ndarray) -> np.ndarray:
        if kind == "mapped":
            path = tmp_path / f"{values.dtype}.npy"
            np.save(path, values)
            return np.load(path, mmap_mode="r")
        if kind == "big-endian":
            return values.astype(values.dtype.newbyteorder(">"))
        if kind == "backwards":
            return values[::-1].copy()[::-1]
        if kind == "every other":
            return np.repeat(values, 2, axis=0)[::2]
        values = values.copy()
        values.flags.writeable = False
        return values

    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # else it warns once in a process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for values in (PIXELS, PIXELS / 255, (PIXELS / 255).astype(np.float32)):
                images = as_kind(values)
                found = images_estimator().fit(images[:FITTED])
                assert np.array_equal(found.labels_, images_fitted.labels_)
                assert np.array_equal(found.predict(images), images_fitted.predict(PIXELS))
                listed = images_estimator().fit(list(images[:FITTED]))
                assert np.array_equal(listed.labels_, images_fitted.labels_)
            for values in (ROWS, ROWS.astype(float)):
                rows = as_kind(values)
                fitted = rows_estimator().fit(rows[:FITTED])
                assert np.array_equal(fitted.labels_, rows_fitted.labels_)
                assert np.array_equal(fitted.predict(rows), rows_fitted.predict(ROWS))
    finally:
        torch.set_warn_always(always)


@pytest.mark.parametrize("form", ["column", "list", "column of words", "mapped"])
def test_classes_may_be_a_column(tmp_path: Path, form: str) -> None:
    classes: Any = load_digits().target[:FITTED]
    expected = images_estimator().fit(PIXELS[:FITTED], classes).scores_
    if form == "mapped":
        np.save(tmp_path / "y.npy", classes[:, None])
        given = np.load(tmp_path / "y.npy", mmap_mode="r")
    else:
        words = classes.astype(str) if "words" in form else classes
        given = words.tolist() if form == "list" else words[:, None]
    assert images_estimator().fit(PIXELS[:FITTED], given).scores_ == expected
