"""Clusterers and coefficient models that return something else than their interfaces say."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ebsc_core import Clusterer, CoefficientModel, Coefficients, InnerProductModel, Options
from ebsc_core.clustering.coefficients import expressed, self_expressive_coefficients
from ebsc_core.clustering.returned import checked_labels, consumed, preferred, sentences
from ebsc_core.config.schema import AffinityOptions
from ebsc_core.plugins.hookspecs import ComponentSpec
from ebsc_core.plugins.installed import Provider
from ebsc_core.plugins.registry import Kind, SelectedComponent
from ebsc_core.plugins.selection import Choice
from ebsc_core.utils.errors import ComponentError

N, TOP_K = 12, 3
ROWS = torch.nn.functional.normalize(torch.randn(N, 5, generator=torch.Generator().manual_seed(0)), dim=1)
GOOD = np.arange(N) % 3


class Labels(Clusterer):
    """Returns what it is told to."""

    consumes: Any = "features"

    def __init__(self, labels: Any = None) -> None:
        self.labels = labels

    def fit_predict(self, data: Any) -> Any:
        return self.labels


class Spoilt(CoefficientModel):
    """Returns sound coefficients, changed by a function."""

    def __init__(self, change: Callable[[Tensor, Tensor], Any]) -> None:
        self.change = change

    def coefficients(self, queries: Tensor, encoded: Any, top_k: int, own: Tensor) -> Any:
        scores = queries @ encoded.T
        scores[torch.arange(len(own)), own] = -torch.inf
        top = scores.topk(top_k, dim=1)
        return self.change(top.indices, top.values)


def built(kind: Kind, component: Any) -> Any:
    """The component as a run builds it from a plugin of the distribution ``mine``."""
    spec = ComponentSpec("x", "For a test.", lambda options: component)
    return Choice(SelectedComponent(kind, "x", spec, Provider("mine", "3")), Options()).build()


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int8, np.uint8])
def test_integers_of_any_size_are_taken_as_int64(dtype: Any) -> None:
    found = checked_labels(GOOD.astype(dtype), Labels(), N)
    assert found.dtype == np.int64
    assert np.array_equal(found, GOOD)


def test_noise_alone_is_taken() -> None:
    assert checked_labels(np.full(N, -1), Labels(), N).tolist() == [-1] * N


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (GOOD.tolist(), "a list, not an array of 12 integers"),
        (torch.from_numpy(GOOD), "a Tensor, not an array of 12 integers"),
        (None, "a NoneType, not an array"),
        (GOOD[:-1], "an array of type int64 and shape (11,), not an array of 12 integers"),
        (GOOD[:, None], "of type int64 and shape (12, 1), not an array"),
        (GOOD.astype(float), "of type float64 and shape (12,), not an array"),
        (GOOD > 0, "of type bool and shape (12,), not an array"),
        (GOOD.astype(str), "not an array of 12 integers"),
        (np.where(GOOD == 0, N, GOOD), "the label 12 for 12 rows; labels count from 0"),
        (np.where(GOOD == 0, -2, GOOD), "the label -2 for 12 rows; labels count from 0"),
        (GOOD.astype(np.uint64) + np.uint64(2**63), "the label 922337203685477"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_with_the_supplier(labels: Any, said: str) -> None:
    wanted = "clusterer 'x' of mine 3: fit_predict returned .*" + re.escape(said)
    with pytest.raises(ComponentError, match=wanted):
        checked_labels(labels, built(Kind.CLUSTERER, Labels()), N)


@pytest.mark.parametrize("consumes", ["graph", None, ["affinity"], 1])
def test_a_clusterer_says_what_it_consumes(consumes: Any) -> None:
    clusterer = built(Kind.CLUSTERER, Labels())
    assert consumed(clusterer) == "features"
    clusterer.consumes = consumes
    said = re.escape(f"'affinity' or 'features', not {consumes!r}")
    with pytest.raises(ComponentError, match=f"clusterer 'x' of mine 3: its consumes must be {said}"):
        consumed(clusterer)


SPOILT: list[tuple[Callable[[Tensor, Tensor], Any], str]] = [
    (lambda i, v: (i, v), "a tuple, not ebsc_core.Coefficients"),
    (lambda i, v: None, "a NoneType, not ebsc_core.Coefficients"),
    (lambda i, v: Coefficients(i.numpy(), v), "indices that are a ndarray, not a tensor"),  # type: ignore[arg-type]
    (lambda i, v: Coefficients(i, None), "values that are a NoneType"),  # type: ignore[arg-type]
    (lambda i, v: Coefficients(i[:, 1:], v[:, 1:]), "shape (12, 2), for 12 queries and a top_k of 3"),
    (lambda i, v: Coefficients(i, v[:, :1]), "values that are of type float32 and shape (12, 1)"),
    (lambda i, v: Coefficients(i[:1], v[:1]), "shape (1, 3), for 12 queries"),
    (lambda i, v: Coefficients(i.float(), v), "indices that are of type float32"),
    (lambda i, v: Coefficients(i > 0, v), "indices that are of type bool"),
    (lambda i, v: Coefficients(i, v.to(torch.complex64)), "values that are of type complex64"),
    (lambda i, v: Coefficients(i + N, v), "the dictionary has 12 rows"),
    (lambda i, v: Coefficients(i - N, v), "the index -12; the dictionary has 12 rows"),
    (lambda i, v: Coefficients(i, v / 0 * 0), "values that are not finite"),
    (lambda i, v: Coefficients(i, v.double() * 1e300), "values that are not finite"),
]


@pytest.mark.parametrize(("change", "said"), SPOILT, ids=[said for _, said in SPOILT])
def test_coefficients_that_cannot_be_used_are_refused_with_the_supplier(
    change: Callable[[Tensor, Tensor], Any], said: str
) -> None:
    model = built(Kind.COEFFICIENTS, Spoilt(change))
    wanted = "coefficient model 'x' of mine 3: coefficients returned .*" + re.escape(said)
    with pytest.raises(ComponentError, match=wanted):
        self_expressive_coefficients(model, ROWS, TOP_K)


def test_short_indices_and_other_floats_are_converted() -> None:
    sound = self_expressive_coefficients(Spoilt(Coefficients), ROWS, TOP_K)
    other = Spoilt(lambda i, v: Coefficients(i.int(), v.double()))
    found = self_expressive_coefficients(other, ROWS, TOP_K)
    assert found.indices.dtype == torch.int64
    assert found.values.dtype == torch.float32
    assert torch.equal(found.indices, sound.indices)
    assert torch.equal(found.values, sound.values)


def test_no_queries_have_no_coefficients_to_check() -> None:
    own = torch.empty(0, dtype=torch.int64)
    assert expressed(Spoilt(Coefficients), ROWS[:0], ROWS, TOP_K, own).indices.shape == (0, TOP_K)


def test_a_component_that_no_registry_built_is_named_by_its_class() -> None:
    with pytest.raises(ComponentError, match="clusterer Labels: fit_predict returned a NoneType"):
        checked_labels(None, Labels(), N)


def test_a_component_with_slots_can_be_built() -> None:
    class Slots:
        __slots__ = ()

    assert isinstance(built(Kind.CLUSTERER, Slots()), Slots)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (["One.", "Two."], ["One.", "Two."]),
        (("One.",), ["One."]),
        ([], []),
        (None, []),
        ("Not converged.", ["Not converged."]),
        ([1, ValueError("odd")], ["1", "odd"]),
        (["two\nlines", ""], ["two lines"]),
        (3.5, ["3.5"]),
    ],
)
def test_what_a_component_says_is_told_in_any_form(said: Any, told: list[str]) -> None:
    clusterer: Any = Labels()
    assert sentences(clusterer) == []
    clusterer.warnings_ = said
    assert sentences(clusterer) == told


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (None, "graph returned a NoneType, not a dict of settings of [affinity]"),
        ({"n_neighbour": 3}, "[affinity]: unknown option 'affinity.n_neighbour': did you mean"),
        ({"form": "banana"}, "graph returned no settings of [affinity]: option 'affinity.form': input"),
        ({3: 3}, "graph returned no settings of [affinity]: "),
    ],
)
def test_a_model_wants_only_settings_that_there_are(wanted: Any, said: str) -> None:
    model = built(Kind.COEFFICIENTS, Spoilt(Coefficients))
    model.graph = lambda: wanted
    with pytest.raises(ComponentError, match=re.escape(said)) as caught:
        preferred(model, "graph", AffinityOptions())
    assert str(caught.value).startswith("coefficient model 'x' of mine 3: ")


def test_what_is_given_comes_before_what_a_model_wants() -> None:
    model: Any = Spoilt(Coefficients)
    model.graph = lambda: {"form": "unweighted", "n_neighbors": 7}
    found = preferred(model, "graph", AffinityOptions(form="symmetrize"))
    assert found == AffinityOptions(form="symmetrize", n_neighbors=7)


class Products(InnerProductModel):
    """Takes the rows themselves; one of its methods returns what it is told to."""

    def __init__(self, method: str, result: Callable[[Tensor], Any]) -> None:
        self.method, self.result = method, result

    def _of(self, method: str, found: Tensor) -> Any:
        return self.result(found) if method == self.method else found

    def queries(self, rows: Tensor) -> Tensor:
        return self._of("queries", rows)

    def keys(self, rows: Tensor) -> Tensor:
        return self._of("keys", rows)

    def weigh(self, scores: Tensor, normaliser: Tensor) -> Tensor:
        return self._of("weigh", scores)


@pytest.mark.parametrize("method", ["queries", "keys", "weigh"])
@pytest.mark.parametrize(
    ("result", "said"),
    [
        (lambda found: None, f"returned a NoneType, not a tensor ({N}, "),
        (lambda found: found[1:], f"not ({N}, "),
        (lambda found: found[:, 0], f"shape ({N},), not ({N}, "),
    ],
)
def test_an_inner_product_model_that_returns_something_else_is_named(
    method: str, result: Callable[[Tensor], Any], said: str
) -> None:
    model = built(Kind.COEFFICIENTS, Products(method, result))
    with pytest.raises(ComponentError, match=re.escape(said)) as error:
        expressed(model, ROWS, ROWS, TOP_K, torch.arange(N))
    assert str(error.value).startswith("coefficient model 'x' of mine 3: ")
    assert f": {method} returned" in str(error.value)
    assert "\n" not in str(error.value)
