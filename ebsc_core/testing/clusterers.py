"""Check the contract of every clusterer."""

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
    """Hold a clusterer under test, and convert rows to the form that it consumes."""

    def build(self, n_clusters: int = GROUPS, seed: int = 0) -> Clusterer:
        """Build a new clusterer."""
        return self.made(n_clusters, seed, seed=seed)

    def given(self, rows: Tensor) -> Data:
        """Convert rows to the input of this clusterer: an affinity, an array or ``Rows``."""
        clusterer = self.build()
        if clusterer.consumes == "affinity":
            return affinity_of(rows)
        return HeldRows(rows) if clusterer.streams else rows.numpy().copy()

    def labels(self, rows: Tensor, n_clusters: int = GROUPS, seed: int = 0) -> np.ndarray:
        """Return the labels that a new clusterer assigns to rows."""
        return self.build(n_clusters, seed).fit_predict(self.given(rows))


contract = Contract(Kind.CLUSTERER, ClustererSubject)


def groups() -> Tensor:
    """Make unit-length rows ``(120, 12)`` of four well-separated groups, one group after the other.

    Each group is in a plane of its own, on one side of the origin, so that every notion of a cluster finds
    the groups.
    """
    generator = torch.Generator().manual_seed(0)
    angle = 0.5 * torch.rand(GROUPS * EACH, generator=generator)
    group = torch.arange(GROUPS).repeat_interleave(EACH)
    points = torch.zeros(len(group), WIDTH)
    points[torch.arange(len(group)), 2 * group] = angle.cos()
    points[torch.arange(len(group)), 2 * group + 1] = angle.sin()
    return F.normalize(points + 0.02 * torch.randn(points.shape, generator=generator), dim=1)


def cloud() -> Tensor:
    """Make unit-length rows ``(150, 12)`` without structure, on which every random decision is visible."""
    return F.normalize(torch.randn(150, WIDTH, generator=torch.Generator().manual_seed(1)), dim=1)


def affinity_of(rows: Tensor) -> sparse.csr_matrix:
    """Compute the affinity of each row with its nearest rows: symmetric, non-negative, zero diagonal."""
    cosines = rows @ rows.T
    cosines.fill_diagonal_(-torch.inf)
    values, indices = cosines.topk(NEIGHBORS, dim=1)
    return symmetrized(Coefficients(indices, values.clamp_min(0.01)))


@contract.basic
def can_be_built(part: ClustererSubject) -> None:
    """Return an `ebsc_core.Clusterer` with `consumes` set from `factory(options, n_clusters, seed)`.

    The attribute tells the run what to pass: the affinity or the features.
    """
    built = part.build()
    require(isinstance(built, Clusterer), f"it returned a {type(built).__name__}")
    consumes = getattr(built, "consumes", None)
    require(consumes in ("affinity", "features"), f"consumes is {consumes!r}")
    finds = getattr(built, "finds_number", False)
    require(isinstance(finds, bool), f"finds_number is {finds!r}, not True or False")


@contract.basic
def label_shape(part: ClustererSubject) -> None:
    """Return from `fit_predict` one label for each of N rows: an ndarray of shape (N,).

    The run writes the labels beside the names of the images, one by one.
    """
    labels = part.labels(groups())
    require(isinstance(labels, np.ndarray), f"it returned a {type(labels).__name__}")
    require(labels.shape == (GROUPS * EACH,), f"their shape is {labels.shape} for {GROUPS * EACH} rows")


@contract.basic
def label_dtype(part: ClustererSubject) -> None:
    """Return int64 labels.

    The run counts with labels and indexes by them. Floats fail there, and small or unsigned integers
    overflow or lose the -1 of noise.
    """
    dtype = part.labels(groups()).dtype
    require(dtype == np.int64, f"they are {dtype}")


@contract.check
def devices(part: ClustererSubject) -> None:
    """Find the same groups with `device` set to any device of the machine.

    A run sets `device` before `fit_predict`. A clusterer that cannot compute there ignores it.
    """
    expected = part.labels(groups())
    for device in common.devices():
        clusterer = part.build()
        clusterer.device = device
        labels = clusterer.fit_predict(part.given(groups()))
        score = adjusted_rand_score(expected, labels)
        require(score > 0.99, f"on {device} the partition differs (adjusted Rand index {score:.2f})")


@contract.check
def labels_from_zero(part: ClustererSubject) -> None:
    """Count labels from 0 without gaps; only noise is -1.

    They are positions in the table of clusters.
    """
    kinds = np.unique(part.labels(groups()))
    expected = np.arange(len(kinds)) - (1 if kinds[0] == -1 else 0)
    require(bool((kinds == expected).all()), f"they are {kinds.tolist()}")


@contract.check
def as_many_as_asked_for(part: ClustererSubject) -> None:
    """Find as many clusters as requested, or say in `warnings_` why not.

    A user who requests ten clusters and gets seven without a message misreads every table.
    """
    if part.build().finds_number:
        raise NotApplicable("it finds the number itself")
    for rows, wanted in ((groups(), GROUPS), (groups(), 7), (cloud(), 9)):
        clusterer = part.build(wanted)
        labels = clusterer.fit_predict(part.given(rows))
        n_labels = len(np.unique(labels[labels >= 0]))
        warned = bool(getattr(clusterer, "warnings_", []))
        require(
            n_labels == wanted or warned,
            f"{wanted} clusters wanted, {n_labels} found, and warnings_ is empty",
        )


@contract.check
def number_found_itself(part: ClustererSubject) -> None:
    """Find the same clusters whatever number the factory gets, if `finds_number` is true.

    The run then asks for no number, and the one that it builds the clusterer for means nothing.
    """
    if not part.build().finds_number:
        raise NotApplicable("it is given the number")
    few, many = part.labels(groups(), 2), part.labels(groups(), 2 * GROUPS)
    found = [len(np.unique(labels[labels >= 0])) for labels in (few, many)]
    require(
        bool((few == many).all()),
        f"built for 2 and for {2 * GROUPS} clusters, it finds {found[0]} and {found[1]}, or others",
    )


@contract.check
def warnings_are_sentences(part: ClustererSubject) -> None:
    """Make `warnings_`, if it exists, a list of sentences, each on one line.

    The run prints each sentence as a line for the user.
    """
    for rows, wanted in ((groups(), GROUPS), (cloud(), 9)):
        clusterer = part.build(wanted)
        clusterer.fit_predict(part.given(rows))
        common.require_sentences(clusterer)


@contract.check
def same_seed_same_labels(part: ClustererSubject) -> None:
    """Return the same labels for the same rows and the same seed.

    The same seed must give the same run, also on rows without structure, where the start decides
    everything.
    """
    first, second = part.labels(cloud(), seed=3), part.labels(cloud(), seed=3)
    other = int((first != second).sum())
    require(not other, f"{other} of {len(first)} labels differ between two runs")


@contract.check
def order_of_rows(part: ClustererSubject) -> None:
    """Find the same well-separated groups in any order of the rows; only their numbers may change.

    The order of images is arbitrary, and often sorted by class. A clusterer must not profit from it.
    """
    rows = groups()
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(rows)))
    before, after = part.labels(rows)[order.numpy()], part.labels(rows[order])
    score = adjusted_rand_score(before, after)
    # A row in ten may change its cluster, because random starts also depend on the order.
    require(score > 0.9, f"shuffled rows get another partition (adjusted Rand index {score:.2f})")


@contract.check
def inputs_not_mutated(part: ClustererSubject) -> None:
    """Leave the affinity or the rows unchanged.

    The run computes confidences and figures from them afterwards.
    """
    data = part.given(groups())
    before = [array.copy() for array in _arrays(data)]
    part.build().fit_predict(data)
    for array, known in zip(_arrays(data), before, strict=True):
        require(np.array_equal(array, known), "it has other values afterwards")


@contract.check
def lonely_rows(part: ClustererSubject) -> None:
    """Label every row, or mark it as noise, even if some rows of the graph have no edge.

    Such rows occur if a model finds nothing to express them by.
    """
    if part.build().consumes != "affinity":
        raise NotApplicable("it is given features, not a graph")
    graph = sparse.block_diag([affinity_of(groups()), sparse.csr_matrix((3, 3))], format="csr")
    labels = part.build().fit_predict(sparse.csr_matrix(graph.astype(np.float32)))
    require(labels.shape == (GROUPS * EACH + 3,), f"{len(labels)} labels for {GROUPS * EACH + 3} rows")


@contract.check
def equal_rows(part: ClustererSubject) -> None:
    """Cluster rows that occur several times like all others.

    Data sets contain duplicates, and each of them needs a label.
    """
    rows = torch.cat([groups(), groups()[::5]])
    labels = part.labels(rows)
    require(labels.shape == (len(rows),), f"{len(labels)} labels for {len(rows)} rows")


@contract.check
def eigenvalues_descend(part: ClustererSubject) -> None:
    """Put eigenvalues of the normalised affinity, if any, into `eigenvalues_`: descending, at most 1.

    The run computes the eigengap from them.
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
