"""Check the contract of every coefficient model; ``trainable.py`` adds the checks of trainable ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ebsc_core.clustering.coefficients import expressed
from ebsc_core.clustering.inner_product import InnerProductModel
from ebsc_core.clustering.returned import preferred
from ebsc_core.config.schema import AffinityOptions, RefineOptions
from ebsc_core.plugins.interfaces import CoefficientModel, Coefficients, TrainableCoefficientModel
from ebsc_core.plugins.registry import Kind
from ebsc_core.testing import common
from ebsc_core.testing.checks import Contract, NotApplicable, require
from ebsc_core.testing.memory import peak_bytes
from ebsc_core.testing.subject import Subject

# A prime, so that no block divides it.
N, WIDTH, TOP_K = 61, 12, 5
# Rows at which memory is measured, then twice and four times as many, queried by so few at once.
MEASURED, AT_ONCE = 256, 64
# Bytes for each pair of rows above which an N×N matrix is held: one of booleans takes 1.
PAIR_BYTES = 0.75


class CoefficientSubject(Subject):
    """Hold a coefficient model under test, for rows of width 12."""

    def build(self, seed: int = 0) -> CoefficientModel:
        """Build a new model, untrained, in evaluation mode."""
        built: CoefficientModel = self.made(WIDTH, seed=seed)
        if isinstance(built, nn.Module):
            built.eval()
        return built


contract = Contract(Kind.COEFFICIENTS, CoefficientSubject)


def rows(n: int = N, seed: int = 0) -> Tensor:
    """Make unit-length rows ``(n, 12)`` near four subspaces of dimension 3, in turn."""
    generator = torch.Generator().manual_seed(seed)
    bases = torch.linalg.qr(torch.randn(4, WIDTH, 3, generator=generator)).Q
    weights = torch.randn(n, 1, 3, generator=generator)
    points = (weights @ bases[torch.arange(n) % 4].mT).squeeze(1)
    return F.normalize(points + 0.05 * torch.randn(n, WIDTH, generator=generator), dim=1)


def express(
    model: CoefficientModel, dictionary: Tensor, top_k: int = TOP_K, own: Tensor | None = None
) -> Coefficients:
    """Compute the coefficients of all rows over all rows, with one call of the model."""
    own = torch.arange(len(dictionary), device=dictionary.device) if own is None else own
    with torch.no_grad():
        return model.coefficients(dictionary, model.encode(dictionary), top_k, own)


def dense(coefficients: Coefficients, columns: int) -> Tensor:
    """Convert coefficients to a matrix, in any order of entries; entries of the same column are added."""
    empty = torch.zeros(len(coefficients.indices), columns)
    return empty.scatter_add(1, coefficients.indices.cpu(), coefficients.values.cpu().float())


@contract.basic
def can_be_built(part: CoefficientSubject) -> None:
    """Return an `ebsc_core.CoefficientModel` from `factory(options, width)`.

    A run builds the model with this call. The class declares the methods that the run calls later.
    """
    built = part.build()
    require(isinstance(built, CoefficientModel), f"it returned a {type(built).__name__}")


@contract.basic
def output_shapes(part: CoefficientSubject) -> None:
    """Return from `coefficients` indices and values of shape (B, top_k) for B queries.

    The graph is built from this many entries of each row; unused entries are zero.
    """
    for top_k in (1, TOP_K, N - 1):
        actual = express(part.build(), rows(), top_k)
        require(isinstance(actual, Coefficients), f"coefficients returned a {type(actual).__name__}")
        common.require_shape(actual.indices, (N, top_k), "indices")
        common.require_shape(actual.values, (N, top_k), "values")


@contract.basic
def output_dtypes(part: CoefficientSubject) -> None:
    """Return int64 indices and float32 values.

    Positions in large dictionaries need int64. Other values would have to be converted, block by block.
    """
    actual = express(part.build(), rows())
    require(actual.indices.dtype == torch.int64, f"indices are {actual.indices.dtype}")
    require(actual.values.dtype == torch.float32, f"values of float32 rows are {actual.values.dtype}")


@contract.basic
def devices(part: CoefficientSubject) -> None:
    """Return the result on the device of the queries.

    A tensor made without `device=` is on the CPU, and a run on a GPU stops at the first operation with it.
    """
    for device in common.devices():
        actual = express(common.moved(part.build(), device), rows().to(device))
        for what, tensor in (("indices", actual.indices), ("values", actual.values)):
            require(tensor.device == device, f"rows are on {device}, {what} on {tensor.device}")


@contract.basic
def valid_indices(part: CoefficientSubject) -> None:
    """Return indices that are positions in the dictionary, 0 to N - 1, even if the value is zero.

    They become columns of a sparse matrix, which does not check them.
    """
    indices = express(part.build(), rows(), N - 1).indices
    low, high = int(indices.min()), int(indices.max())
    require(low >= 0 and high < N, f"of a dictionary of {N} rows they are from {low} to {high}")


@contract.basic
def finite_values(part: CoefficientSubject) -> None:
    """Return finite values, even if dictionary rows are equal or the dictionary has two rows only.

    Data sets contain duplicates, and one nan spreads over all eigenvectors of the graph.
    """
    twice = torch.cat([rows(20), rows(20)])
    for what, given, top_k in (("61 rows", rows(), 5), ("duplicates", twice, 5), ("two rows", rows(2), 1)):
        common.require_finite(express(part.build(), given, top_k).values, f"coefficients of {what}")


@contract.check
def zero_on_self(part: CoefficientSubject) -> None:
    """Never express a query by itself: the coefficient at its own position `own` is zero.

    Each row explains itself perfectly, and a graph of such coefficients falls apart into single rows.
    """
    for top_k in (TOP_K, N - 1):
        weights = dense(express(part.build(), rows(), top_k), N).diagonal()
        on_self = int((weights != 0).sum())
        require(not on_self, f"with top_k = {top_k}, {on_self} of {N} rows have weight on themselves")


@contract.check
def distinct_indices(part: CoefficientSubject) -> None:
    """Give a dictionary row at most one weight in the coefficients of a query.

    `top_k` counts rows; votes and the graph would add such entries.
    """
    actual = express(part.build(), rows())
    for row, (indices, values) in enumerate(zip(actual.indices, actual.values, strict=True)):
        used = indices[values != 0].tolist()
        require(len(set(used)) == len(used), f"row {row} uses {sorted(used)}")


@contract.check
def outside_queries(part: CoefficientSubject) -> None:
    """Let a query that is not in the dictionary (`own` = -1) use all rows, including the last one.

    New images are expressed this way. If -1 were used as a position, it would mean the last row.
    """
    dictionary = rows()
    others = dictionary[[-1]]
    with torch.no_grad():
        model = part.build()
        actual = model.coefficients(others, model.encode(dictionary), N, torch.tensor([-1]))
    common.require_finite(actual.values, "coefficients of a query from outside")
    weight = float(dense(actual, N)[0, -1].abs())
    require(weight > 0, "a query equal to the last row of the dictionary, with own = -1, does not use it")


@contract.check
def any_block_size(part: CoefficientSubject) -> None:
    """Compute the coefficients of a query independently of the other queries and of their number.

    The framework splits queries into blocks that fit in memory, so another machine has other blocks.
    """
    own = torch.arange(N)
    model = part.build()
    whole = dense(expressed(model, rows(), rows(), TOP_K, own, N), N)
    for block in (1, 7, 32):
        actual = dense(expressed(model, rows(), rows(), TOP_K, own, block), N)
        common.require_close(actual, whole, f"in blocks of {block} they differ from those of all {N} at once")


@contract.check
def no_square_matrix(part: CoefficientSubject) -> None:
    """Use memory that grows with N, not with N², after any number of queries.

    The coefficients of 70,000 rows over each other would take 20 GB in float32. The framework uses blocks
    to avoid that.
    """
    model = part.build()
    peak_bytes(lambda: _in_blocks(model, 2 * AT_ONCE))  # what is imported or made ready on first use
    small, middle, large = (peak_bytes(lambda n=n: _in_blocks(model, n)) for n in _SIZES)  # type: ignore[misc]
    # Constant and linear parts cancel out: 16 - 3·4 + 2·1 squares remain.
    per_pair = (large - 3 * middle + 2 * small) / (6 * MEASURED**2)
    require(
        per_pair < PAIR_BYTES,
        f"{small / 2**20:.1f}, {middle / 2**20:.1f} and {large / 2**20:.1f} MiB were held at N = "
        f"{', '.join(map(str, _SIZES))}: {per_pair:.1f} bytes for each pair of rows",
    )


_SIZES = (MEASURED, 2 * MEASURED, 4 * MEASURED)


def _in_blocks(model: CoefficientModel, n: int) -> None:
    dictionary, own = rows(n), torch.arange(n)
    with torch.no_grad():
        encoded = model.encode(dictionary)
        for queries, position in zip(dictionary.split(AT_ONCE), own.split(AT_ONCE), strict=True):
            model.coefficients(queries, encoded, TOP_K, position)


@contract.check
def same_seed_same_coefficients(part: CoefficientSubject) -> None:
    """Compute the same coefficients with two models built with the same seed.

    The same seed must give the same run. Only torch's generator is seeded, not NumPy's and not `random`.
    """
    first, second = (dense(express(part.build(3), rows()), N) for _ in range(2))
    common.require_close(second, first, "two built under the same seed differ")


@contract.check
def wishes_are_settings(part: CoefficientSubject) -> None:
    """Return only settings of `[affinity]` from `graph`, and only those of `[refine]` from `refinement`.

    Models that learn have a `refinement`. The run uses them unless it says otherwise. It stops
    at a name or a value that the section does not know.
    """
    model = part.build()
    preferred(model, "graph", AffinityOptions())
    if isinstance(model, TrainableCoefficientModel):
        preferred(model, "refinement", RefineOptions())


@contract.check
def warnings_are_sentences(part: CoefficientSubject) -> None:
    """Make `warnings_`, if it exists, a list of sentences, each on one line.

    The run prints each sentence as a line for the user.
    """
    model = part.build()
    express(model, rows())
    common.require_sentences(model)


@contract.check
def inputs_not_mutated(part: CoefficientSubject) -> None:
    """Leave queries, dictionary and `own` unchanged.

    They are the run's features. If they change in place, later blocks and the clusterer get wrong rows.
    """
    dictionary, queries, own = rows(), rows(), torch.arange(N)
    with common.untouched(dictionary=dictionary, queries=queries, own=own), torch.no_grad():
        model = part.build()
        model.coefficients(queries, model.encode(dictionary), TOP_K, own)


@contract.check
def agrees_with_inner_products(part: CoefficientSubject) -> None:
    """Return from an `InnerProductModel` what `weigh` makes of the largest inner products.

    The framework searches for the inner products itself and calls only `weigh`, so anything else in
    `coefficients` would be lost. It computes the normaliser only if `normalised` is true.
    """
    model = part.build()
    if not isinstance(model, InnerProductModel):
        raise NotApplicable("it is no InnerProductModel")
    with torch.no_grad():
        scores = model.queries(rows()) @ model.keys(rows()).T
        scores.fill_diagonal_(-torch.inf)
        normalizer = scores.logsumexp(dim=1, keepdim=True)
        if not model.normalised:
            normalizer.fill_(torch.nan)
        largest = scores.topk(TOP_K, dim=1)
        expected = Coefficients(largest.indices, model.weigh(largest.values, normalizer))
    actual = express(model, rows())
    common.require_close(
        dense(actual, N), dense(expected, N), "coefficients() and weigh() of the inner products differ"
    )
