"""What every clusterer owes the framework."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.clustering.affinity import symmetrized
from ebsc_core.data.features.rows import HeldRows
from ebsc_core.plugins.interfaces import Clusterer, Coefficients
from ebsc_core.plugins.registry import Kind
from ebsc_core.testing import common
from ebsc_core.testing.checks import Contract, NotApplicable, require
from ebsc_core.testing.subject import Subject

GROUPS, EACH, WIDTH, NEIGHBORS = 4, 30, 12, 6
Data = sparse.csr_matrix | np.ndarray | HeldRows


class ClustererSubject(Subject):
    """A clusterer under test, and the rows it is given in the form it wants."""

    def build(self, n_clusters: int = GROUPS, seed: int = 0) -> Clusterer:
        """One of its own."""
        return self.made(n_clusters, seed, seed=seed)

    def given(self, rows: Tensor) -> Data:
        """Rows as a clusterer of this kind is given them: an affinity, an array or ``Rows``."""
        clusterer = self.build()
        if clusterer.consumes == "affinity":
            return affinity_of(rows)
        return HeldRows(rows) if clusterer.streams else rows.numpy().copy()

    def labels(self, rows: Tensor, n_clusters: int = GROUPS, seed: int = 0) -> np.ndarray:
        """What a new one makes of rows."""
        return self.build(n_clusters, seed).fit_predict(self.given(rows))


contract = Contract(Kind.CLUSTERER, ClustererSubject)


def groups() -> Tensor:
    """Unit-length rows ``(120, 12)`` of four groups far apart, one after the other.

    Each lies in a plane of its own, to one side of the origin, so that every idea of a cluster finds them.
    """
    generator = torch.Generator().manual_seed(0)
    angle = 0.5 * torch.rand(GROUPS * EACH, generator=generator)
    group = torch.arange(GROUPS).repeat_interleave(EACH)
    points = torch.zeros(len(group), WIDTH)
    points[torch.arange(len(group)), 2 * group] = angle.cos()
    points[torch.arange(len(group)), 2 * group + 1] = angle.sin()
    return F.normalize(points + 0.02 * torch.randn(points.shape, generator=generator), dim=1)


def cloud() -> Tensor:
    """Unit-length rows ``(150, 12)`` without any structure: whatever is decided at random shows."""
    return F.normalize(torch.randn(150, WIDTH, generator=torch.Generator().manual_seed(1)), dim=1)


def affinity_of(rows: Tensor) -> sparse.csr_matrix:
    """The affinity of each row with its nearest; symmetric, non-negative, zero diagonal."""
    cosines = rows @ rows.T
    cosines.fill_diagonal_(-torch.inf)
    values, indices = cosines.topk(NEIGHBORS, dim=1)
    return symmetrized(Coefficients(indices, values.clamp_min(0.01)))


@contract.basic
def can_be_built(part: ClustererSubject) -> None:
    """`factory(options, n_clusters, seed)` returns an `ebsc_core.Clusterer` that says what it `consumes`.

    By that a run decides what to give it: the affinity or the features.
    """
    built = part.build()
    require(isinstance(built, Clusterer), f"it returned a {type(built).__name__}")
    consumes = getattr(built, "consumes", None)
    require(consumes in ("affinity", "features"), f"consumes is {consumes!r}")


@contract.basic
def label_shape(part: ClustererSubject) -> None:
    """`fit_predict` returns one label for each of N rows: an ndarray of shape (N,).

    They are written beside the names of the images, one by one.
    """
    labels = part.labels(groups())
    require(isinstance(labels, np.ndarray), f"it returned a {type(labels).__name__}")
    require(labels.shape == (GROUPS * EACH,), f"their shape is {labels.shape} for {GROUPS * EACH} rows")


@contract.basic
def label_dtype(part: ClustererSubject) -> None:
    """Labels are int64.

    They count and index; floats fail there, and small or unsigned integers overflow or lose the -1 of noise.
    """
    dtype = part.labels(groups()).dtype
    require(dtype == np.int64, f"they are {dtype}")


@contract.check
def devices(part: ClustererSubject) -> None:
    """With `device` set to whatever the machine has, the same groups are found.

    A run sets it before `fit_predict`; who cannot compute there ignores it.
    """
    expected = part.labels(groups())
    for device in common.devices():
        clusterer = part.build()
        clusterer.device = device
        labels = clusterer.fit_predict(part.given(groups()))
        score = adjusted_rand_score(expected, labels)
        require(score > 0.99, f"on {device} the partition is another (adjusted Rand index {score:.2f})")


@contract.check
def labels_from_zero(part: ClustererSubject) -> None:
    """Labels are counted from 0 without gaps; only noise is -1.

    They are positions in the table of clusters.
    """
    kinds = np.unique(part.labels(groups()))
    expected = np.arange(len(kinds)) - (1 if kinds[0] == -1 else 0)
    require(bool((kinds == expected).all()), f"they are {kinds.tolist()}")


@contract.check
def as_many_as_asked_for(part: ClustererSubject) -> None:
    """As many clusters as were asked for, or a sentence in `warnings_` that says why not.

    A user who asked for ten and gets seven without a word trusts a table that means something else.
    """
    for rows, wanted in ((groups(), GROUPS), (groups(), 7), (cloud(), 9)):
        clusterer = part.build(wanted)
        labels = clusterer.fit_predict(part.given(rows))
        n_labels = len(np.unique(labels[labels >= 0]))
        warned = bool(getattr(clusterer, "warnings_", []))
        require(
            n_labels == wanted or warned, f"{wanted} were asked for, {n_labels} came, and warnings_ is empty"
        )


@contract.check
def warnings_are_sentences(part: ClustererSubject) -> None:
    """`warnings_`, where there is one, is a list of sentences, each on one line.

    The run prints each as a line for the user.
    """
    for rows, wanted in ((groups(), GROUPS), (cloud(), 9)):
        clusterer = part.build(wanted)
        clusterer.fit_predict(part.given(rows))
        warnings = getattr(clusterer, "warnings_", [])
        fine = isinstance(warnings, list) and all(
            isinstance(s, str) and s and "\n" not in s for s in warnings
        )
        require(fine, f"warnings_ is {warnings!r}")


@contract.check
def same_seed_same_labels(part: ClustererSubject) -> None:
    """The same rows and the same seed give the same labels.

    The same seed is the same run, also on rows without structure, where everything hangs on the start.
    """
    first, second = part.labels(cloud(), seed=3), part.labels(cloud(), seed=3)
    other = int((first != second).sum())
    require(not other, f"{other} of {len(first)} labels differ between two runs")


@contract.check
def order_of_rows(part: ClustererSubject) -> None:
    """On well-separated groups the order of the rows changes nothing but the numbers of the clusters.

    The order of images is chance; often they come class by class, and a clusterer must not profit from it.
    """
    rows = groups()
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(rows)))
    before, after = part.labels(rows)[order.numpy()], part.labels(rows[order])
    score = adjusted_rand_score(before, after)
    # A row in ten may go elsewhere: random starts are in another order, too.
    require(score > 0.9, f"shuffled rows are partitioned otherwise (adjusted Rand index {score:.2f})")


@contract.check
def inputs_not_mutated(part: ClustererSubject) -> None:
    """The affinity or the rows are left as they are.

    The run computes confidences and figures from them afterwards.
    """
    data = part.given(groups())
    before = [array.copy() for array in _arrays(data)]
    part.build().fit_predict(data)
    for array, known in zip(_arrays(data), before, strict=True):
        require(np.array_equal(array, known), "it had other values afterwards")


@contract.check
def lonely_rows(part: ClustererSubject) -> None:
    """A graph in which some rows have no edge at all is clustered, too: every row gets a label or is noise.

    Such rows occur wherever a model finds nothing to express a row by.
    """
    if part.build().consumes != "affinity":
        raise NotApplicable("it is given features, not a graph")
    graph = sparse.block_diag([affinity_of(groups()), sparse.csr_matrix((3, 3))], format="csr")
    labels = part.build().fit_predict(sparse.csr_matrix(graph.astype(np.float32)))
    require(labels.shape == (GROUPS * EACH + 3,), f"{len(labels)} labels for {GROUPS * EACH + 3} rows")


@contract.check
def equal_rows(part: ClustererSubject) -> None:
    """Rows that occur several times are clustered like any.

    Data sets have duplicates, and every one of them needs a label.
    """
    rows = torch.cat([groups(), groups()[::5]])
    labels = part.labels(rows)
    require(labels.shape == (len(rows),), f"{len(labels)} labels for {len(rows)} rows")


@contract.check
def eigenvalues_descend(part: ClustererSubject) -> None:
    """`eigenvalues_`, where there are any, are those of the normalised affinity: descending, at most 1.

    The run reads the eigengap from them.
    """
    clusterer = part.build()
    clusterer.fit_predict(part.given(groups()))
    values = getattr(clusterer, "eigenvalues_", None)
    if values is None:
        raise NotApplicable("it computes none")
    require(bool((np.diff(values) <= 1e-5).all()), f"they are not descending: {np.round(values, 4).tolist()}")
    require(bool(values[0] <= 1 + 1e-3), f"the largest is {values[0]:.4f}")


def _arrays(data: Data) -> list[np.ndarray]:
    if isinstance(data, HeldRows):
        return [data.held().numpy()]
    return [data] if isinstance(data, np.ndarray) else [data.data, data.indices, data.indptr]


common.add_options_checks(contract)
