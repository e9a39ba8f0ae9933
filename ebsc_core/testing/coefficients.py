"""What every coefficient model owes the framework; what only those that train owe is in trainable.py."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ebsc_core.clustering.coefficients import expressed
from ebsc_core.clustering.inner_product import InnerProductModel
from ebsc_core.plugins.interfaces import CoefficientModel, Coefficients
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
    """A coefficient model under test, for rows of width 12."""

    def build(self, seed: int = 0) -> CoefficientModel:
        """One of its own, untrained, in evaluation mode."""
        built: CoefficientModel = self.made(WIDTH, seed=seed)
        if isinstance(built, nn.Module):
            built.eval()
        return built


contract = Contract(Kind.COEFFICIENTS, CoefficientSubject)


def rows(n: int = N, seed: int = 0) -> Tensor:
    """Unit-length rows ``(n, 12)`` near four subspaces of dimension 3, one after the other."""
    generator = torch.Generator().manual_seed(seed)
    bases = torch.linalg.qr(torch.randn(4, WIDTH, 3, generator=generator)).Q
    weights = torch.randn(n, 1, 3, generator=generator)
    points = (weights @ bases[torch.arange(n) % 4].mT).squeeze(1)
    return F.normalize(points + 0.05 * torch.randn(n, WIDTH, generator=generator), dim=1)


def express(
    model: CoefficientModel, dictionary: Tensor, top_k: int = TOP_K, own: Tensor | None = None
) -> Coefficients:
    """Coefficients of all rows over all, asked of the model at once."""
    own = torch.arange(len(dictionary), device=dictionary.device) if own is None else own
    with torch.no_grad():
        return model.coefficients(dictionary, model.encode(dictionary), top_k, own)


def dense(coefficients: Coefficients, columns: int) -> Tensor:
    """The coefficients as a matrix, whatever order a row's entries are in; entries of one column add up."""
    empty = torch.zeros(len(coefficients.indices), columns)
    return empty.scatter_add(1, coefficients.indices.cpu(), coefficients.values.cpu().float())


@contract.basic
def can_be_built(part: CoefficientSubject) -> None:
    """`factory(options, width)` returns an `ebsc_core.CoefficientModel`.

    That is how a run builds it; what it calls later is declared there.
    """
    built = part.build()
    require(isinstance(built, CoefficientModel), f"it returned a {type(built).__name__}")


@contract.basic
def output_shapes(part: CoefficientSubject) -> None:
    """For B queries `coefficients` returns indices and values of shape (B, top_k).

    Of each row so many entries are kept, zeros where fewer are used; the graph is built from them.
    """
    for top_k in (1, TOP_K, N - 1):
        actual = express(part.build(), rows(), top_k)
        require(isinstance(actual, Coefficients), f"coefficients returned a {type(actual).__name__}")
        common.require_shape(actual.indices, (N, top_k), "indices")
        common.require_shape(actual.values, (N, top_k), "values")


@contract.basic
def output_dtypes(part: CoefficientSubject) -> None:
    """Indices are int64, values float32.

    Positions in large dictionaries do not fit in less; other values would be converted, block by block.
    """
    actual = express(part.build(), rows())
    require(actual.indices.dtype == torch.int64, f"indices are {actual.indices.dtype}")
    require(actual.values.dtype == torch.float32, f"values of float32 rows are {actual.values.dtype}")


@contract.basic
def devices(part: CoefficientSubject) -> None:
    """What it returns is on the device of the queries.

    A tensor made without `device=` lies on the CPU, and a run on a GPU stops at the first operation with it.
    """
    for device in common.devices():
        actual = express(common.moved(part.build(), device), rows().to(device))
        for what, tensor in (("indices", actual.indices), ("values", actual.values)):
            require(tensor.device == device, f"rows are on {device}, {what} on {tensor.device}")


@contract.basic
def valid_indices(part: CoefficientSubject) -> None:
    """Indices are positions in the dictionary, 0 to N - 1, also where the value is zero.

    They become columns of a sparse matrix, which does not check them.
    """
    indices = express(part.build(), rows(), N - 1).indices
    low, high = int(indices.min()), int(indices.max())
    require(low >= 0 and high < N, f"of a dictionary of {N} rows they are from {low} to {high}")


@contract.basic
def finite_values(part: CoefficientSubject) -> None:
    """Values are finite, also where rows of the dictionary are equal, and where it holds two rows.

    Data sets have duplicates; one nan spreads over all eigenvectors of the graph.
    """
    twice = torch.cat([rows(20), rows(20)])
    for what, given, top_k in (("61 rows", rows(), 5), ("duplicates", twice, 5), ("two rows", rows(2), 1)):
        common.require_finite(express(part.build(), given, top_k).values, f"coefficients of {what}")


@contract.check
def zero_on_self(part: CoefficientSubject) -> None:
    """A query is never expressed by itself: at `own`, its position in the dictionary, there is no weight.

    A row explains itself perfectly, and a graph of such coefficients falls apart into single rows.
    """
    for top_k in (TOP_K, N - 1):
        weights = dense(express(part.build(), rows(), top_k), N).diagonal()
        on_self = int((weights != 0).sum())
        require(not on_self, f"with top_k = {top_k}, {on_self} of {N} rows have weight on themselves")


@contract.check
def distinct_indices(part: CoefficientSubject) -> None:
    """No dictionary row has weight twice in the coefficients of a query.

    `top_k` counts rows; votes and the graph would add such entries up.
    """
    actual = express(part.build(), rows())
    for row, (indices, values) in enumerate(zip(actual.indices, actual.values, strict=True)):
        used = indices[values != 0].tolist()
        require(len(set(used)) == len(used), f"row {row} uses {sorted(used)}")


@contract.check
def outside_queries(part: CoefficientSubject) -> None:
    """A query that is not in the dictionary (`own` = -1) may use all of its rows, the last one as well.

    New images are expressed that way; as a position, -1 would be the last row.
    """
    dictionary = rows()
    others = dictionary[[-1]]
    with torch.no_grad():
        model = part.build()
        actual = model.coefficients(others, model.encode(dictionary), N, torch.tensor([-1]))
    common.require_finite(actual.values, "coefficients of a query from outside")
    weight = float(dense(actual, N)[0, -1].abs())
    require(weight > 0, "a query equal to the last row of the dictionary, with own = -1, makes no use of it")


@contract.check
def any_block_size(part: CoefficientSubject) -> None:
    """The coefficients of a query do not depend on which others are asked at the same time, or how many.

    The framework splits the queries as memory allows: the same run on another machine has other blocks.
    """
    own = torch.arange(N)
    model = part.build()
    whole = dense(expressed(model, rows(), rows(), TOP_K, own, N), N)
    for block in (1, 7, 32):
        actual = dense(expressed(model, rows(), rows(), TOP_K, own, block), N)
        common.require_close(actual, whole, f"in blocks of {block} they differ from those of all {N} at once")


@contract.check
def no_square_matrix(part: CoefficientSubject) -> None:
    """Memory grows with N, not with N², however many queries have been asked.

    70,000 rows over one another are 20 GB in float32; the framework asks in blocks so that it need not be.
    """
    model = part.build()
    peak_bytes(lambda: _in_blocks(model, 2 * AT_ONCE))  # what is imported or made ready on first use
    small, middle, large = (peak_bytes(lambda n=n: _in_blocks(model, n)) for n in _SIZES)  # type: ignore[misc]
    # What is constant or grows with N cancels out: 16 - 3·4 + 2·1 squares are left.
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
    """Built under the same seed, it gives the same coefficients.

    The same seed is the same run. Only torch's generator is seeded: not NumPy's, not `random`.
    """
    first, second = (dense(express(part.build(3), rows()), N) for _ in range(2))
    common.require_close(second, first, "two built under the same seed differ")


@contract.check
def inputs_not_mutated(part: CoefficientSubject) -> None:
    """Queries, dictionary and `own` are left as they are.

    They are the run's features: changed in place, every later block and the clusterer see others.
    """
    dictionary, queries, own = rows(), rows(), torch.arange(N)
    with common.untouched(dictionary=dictionary, queries=queries, own=own), torch.no_grad():
        model = part.build()
        model.coefficients(queries, model.encode(dictionary), TOP_K, own)


@contract.check
def agrees_with_inner_products(part: CoefficientSubject) -> None:
    """An `InnerProductModel` gives what `weigh` makes of the largest inner products of `queries` and `keys`.

    The framework searches those by itself and calls `weigh` alone: what else `coefficients` did would be left
    out. The normaliser is there only for who says `normalised`.
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
