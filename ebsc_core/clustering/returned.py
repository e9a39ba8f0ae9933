"""Check what components of other authors return, before anything is computed from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NoReturn, TypeVar

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from ebsc_core.config.messages import describe
from ebsc_core.config.options import Options
from ebsc_core.plugins.interfaces import Clusterer, CoefficientModel, Coefficients
from ebsc_core.plugins.kinds import Kind
from ebsc_core.plugins.refusal import refuse
from ebsc_core.utils.errors import printable, shortened

Section = TypeVar("Section", bound=Options)

CONSUMED = ("affinity", "features")


def consumed(clusterer: Clusterer) -> str:
    """Return what a clusterer consumes.

    Raises
    ------
    ComponentError
        If this is neither the affinity nor features.
    """
    found = getattr(clusterer, "consumes", None)
    if not isinstance(found, str) or found not in CONSUMED:
        given = shortened(repr(found))
        refuse(clusterer, Kind.CLUSTERER, f"its consumes must be 'affinity' or 'features', not {given}")
    return found


def checked_labels(labels: Any, clusterer: Clusterer, n_rows: int) -> np.ndarray:
    """Return the labels that a clusterer gives to ``n_rows`` rows, as int64.

    Raises
    ------
    ComponentError
        If they are no array of integers, one per row, from -1 to ``n_rows - 1``.
    """

    def fail(what: str) -> NoReturn:
        refuse(clusterer, Kind.CLUSTERER, f"fit_predict returned {what}")

    wanted = f"not an array of {n_rows} integers, one per row"
    if not isinstance(labels, np.ndarray):
        fail(f"a {type(labels).__name__}, {wanted}")
    if labels.shape != (n_rows,) or labels.dtype.kind not in "iu":
        fail(f"an array {_array(labels)}, {wanted}")
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < -1 or high >= n_rows:
        fail(f"the label {low if low < -1 else high} for {n_rows} rows; labels count from 0, and -1 is noise")
    return labels.astype(np.int64, copy=False)


def checked_embedding(clusterer: Clusterer, n_rows: int) -> np.ndarray | None:
    """Return the rows of eigenvectors in which a clusterer worked; None if it has none of this shape.

    Raises
    ------
    ComponentError
        If they are not finite numbers: the confidence of the rows would be none, and the run unreadable.
    """
    found = getattr(clusterer, "embedding_", None)
    if not (isinstance(found, np.ndarray) and found.ndim == 2 and len(found) == n_rows):
        return None
    if found.dtype.kind not in "fiu" or not np.isfinite(found).all():
        refuse(clusterer, Kind.CLUSTERER, "its embedding_ must be finite numbers")
    return found


def checked_eigenvalues(clusterer: Clusterer) -> np.ndarray:
    """Return the eigenvalues that a clusterer has found, of which there may be none.

    Raises
    ------
    ComponentError
        If they are not finite numbers: a file of figures has no others.
    """
    found = getattr(clusterer, "eigenvalues_", None)
    if found is None:
        return np.empty(0)
    try:
        values = [float(value) for value in found]
    except (TypeError, ValueError):
        values = [np.nan]
    if not np.isfinite(values).all():
        refuse(clusterer, Kind.CLUSTERER, "its eigenvalues_ must be finite numbers")
    return found if isinstance(found, np.ndarray) else np.array(values)


def checked_coefficients(
    found: Any, model: CoefficientModel, shape: tuple[int, int], n_rows: int
) -> tuple[Tensor, Tensor]:
    """Return indices and values of coefficients over ``n_rows`` rows, on the CPU, as int64 and float32.

    They are checked there, so a GPU is waited for only where they are copied.

    Raises
    ------
    ComponentError
        If they are no :class:`Coefficients` of this shape with indices of rows and finite values.
    """

    def fail(what: str) -> NoReturn:
        refuse(model, Kind.COEFFICIENTS, f"coefficients returned {what}")

    if not isinstance(found, Coefficients):
        fail(f"a {type(found).__name__}, not ebsc_core.Coefficients")
    for name, part in (("indices", found.indices), ("values", found.values)):
        if not isinstance(part, Tensor):
            fail(f"{name} that are a {type(part).__name__}, not a tensor")
        if part.shape != shape:
            fail(f"{name} that are {_array(part)}, for {shape[0]} queries and a top_k of {shape[1]}")
        if part.is_complex():
            fail(f"{name} that are {_array(part)}, not real")
    if found.indices.is_floating_point() or found.indices.dtype == torch.bool:
        fail(f"indices that are {_array(found.indices)}, not integers")
    indices, values = found.indices.cpu().long(), found.values.cpu().float()
    if indices.numel():
        low, high = map(int, indices.aminmax())
        if low < 0 or high >= n_rows:
            fail(f"the index {low if low < 0 else high}; the dictionary has {n_rows} rows, from 0")
    if not bool(values.isfinite().all()):
        fail("values that are not finite")
    return indices, values


def checked_map(found: Any, model: CoefficientModel, method: str, shape: tuple[int, int | None]) -> Tensor:
    """Return what a method of an inner-product model has made of rows or scores; None stands for any width.

    Raises
    ------
    ComponentError
        If it is no matrix of this shape.
    """
    expected = f"({shape[0]}, {shape[1] or 'any width'})"
    if not isinstance(found, Tensor):
        refuse(
            model, Kind.COEFFICIENTS, f"{method} returned a {type(found).__name__}, not a tensor {expected}"
        )
    if found.ndim != 2 or len(found) != shape[0] or (shape[1] is not None and found.shape[1] != shape[1]):
        refuse(model, Kind.COEFFICIENTS, f"{method} returned a tensor {_array(found)}, not {expected}")
    return found


def preferred(model: CoefficientModel, method: Literal["graph", "refinement"], given: Section) -> Section:
    """Complete the settings ``given`` of a section by those that a method of the model wants otherwise.

    Raises
    ------
    ComponentError
        If the method returns anything but settings of this section.
    """
    wanted = getattr(model, method)()
    section = {"graph": "affinity", "refinement": "refine"}[method]
    if not isinstance(wanted, dict):
        wrong = f"a {type(wanted).__name__}, not a dict of settings of [{section}]"
        refuse(model, Kind.COEFFICIENTS, f"{method} returned {wrong}")
    try:
        return type(given).model_validate(wanted | given.model_dump(exclude_unset=True))
    except ValidationError as error:
        wrong = describe(error, type(given), section)
        refuse(model, Kind.COEFFICIENTS, f"{method} returned no settings of [{section}]: {wrong}")


def sentences(component: Clusterer | CoefficientModel) -> list[str]:
    """Return what a component has to say to the user; a single text is a list of one.

    Nothing is refused here: a warning in another form must not cost the result that it is about.
    """
    found = getattr(component, "warnings_", None)
    if found is None:
        return []
    several = isinstance(found, Iterable) and not isinstance(found, str)
    lines = [printable(str(said)) for said in (found if several else [found])]
    return [line for line in lines if line]


def _array(part: np.ndarray | Tensor) -> str:
    return f"of type {str(part.dtype).removeprefix('torch.')} and shape {tuple(part.shape)}"
