"""Elastic-net subspace clustering (EnSC): sparse coefficients by an exact active-set method, in batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ebsc_core import (
    CoefficientModel,
    Coefficients,
    Options,
    PackedRows,
    RidgeInverse,
    exclude_own,
    has_bf16,
    mean_eigenvalue,
)
from ebsc_plugins.coefficients.newton import MIN_RIDGE, NEWTON_STEPS, rounding, solve_elastic_nets
from ebsc_plugins.coefficients.workers import precise, side_by_side

# Queries that are sorted by their needs after every round, and of those how many advance together: plenty of
# work for a call, while their scores stay in the cache.
POOLED, TOGETHER = 512, 256
# Scores, gathered rows, and inner products of the small problems that one Newton iteration sees: entries held
# at once, from what memory allows down to what a cache does.
MAX_SCORES, MAX_GATHERED, MAX_SOLVED = 1 << 24, 1 << 22, 1 << 20
# The first PROBES rounds only look for candidates. In the first EARLY ones, a query that misses as many rows
# as may join at once will hardly be done in the next: a few Newton steps do.
PROBES, EARLY, FEW_STEPS = 2, 8, 3
# Of plenty of groups of this many dictionary rows, one row at most of each joins per round: several times
# faster than finding the very largest scores.
GROUP = 16
# A row whose largest cosine is below this has nothing to be expressed by.
MIN_COSINE = 1e-3


class ElasticNetOptions(Options):
    """Options of elastic-net subspace clustering."""

    gamma: float = Field(50.0, gt=1)
    """Weight of the reconstruction error, as a multiple of the largest at which all coefficients of a row are
    still zero. The authors use 200 on MNIST."""
    tau: float = Field(0.9, gt=0, le=1)
    """Share of the absolute coefficients in the penalty; the rest goes to their squares. 1 is sparse subspace
    clustering (SSC)."""
    support_size: int = Field(16, ge=1)
    """Dictionary rows that join the working set of a row in each round: for speed, the result is the same."""
    max_rounds: int = Field(40, ge=1)
    """Rounds after which a row keeps what it has."""


@dataclass(frozen=True)
class _Encoded:
    dictionary: PackedRows
    rough: PackedRows
    """The same, in bf16 where that is faster: good enough to tell who is to join."""
    damp: Callable[[Tensor], Tensor]
    """``(XᵀX + λI)⁻¹`` of rows."""


@dataclass(frozen=True)
class _State:
    """Queries on their way, each with its own small problem over a working set of s dictionary rows."""

    place: Tensor
    """``(B,)``, where in the block each is."""
    query: Tensor
    own: Tensor
    scale: Tensor
    """``(B, 1)``, 1/γ': all is solved in units of the reconstruction error."""
    support: Tensor
    """``(B, s)``, positions in the dictionary."""
    barred: Tensor
    """``(B, s)``, which of them take no part: the query itself, or what only fills the row up."""
    gram: Tensor
    """``(B, s, s)``, inner products within the working set."""
    inner: Tensor
    """``(B, s)``, inner products with the query."""
    values: Tensor
    """``(B, s)``, the coefficients so far."""
    residual: Tensor
    """``(B, D)``, the query less its combination of the working set."""
    converged: Tensor
    """``(B,)``, whether the values solve the small problem."""
    missing: Tensor
    """``(B, c)``, positions of dictionary rows that would help, the most helpful first."""
    useless: Tensor
    """``(B, c)``, which of those would not: the query itself, or in the working set already."""
    wanted: Tensor
    """``(B,)``, how many of them are to join."""

    def __len__(self) -> int:
        return len(self.place)

    def take(self, which: Tensor) -> _State:
        return _State(*(getattr(self, field.name)[which] for field in fields(self)))

    def first(self, size: int) -> _State:
        """With so many rows of each working set."""
        return replace(
            self,
            support=self.support[:, :size],
            barred=self.barred[:, :size],
            gram=self.gram[:, :size, :size],
            inner=self.inner[:, :size],
            values=self.values[:, :size],
        )

    def used(self) -> Tensor:
        """``(B,)``, how many coefficients are not zero."""
        return (self.values != 0).sum(dim=1)


class ElasticNet(CoefficientModel):
    """``min_c τ‖c‖₁ + (1-τ)/2 ‖c‖² + γ'/2 ‖x - Xᵀc‖²`` with ``c_own = 0``, solved exactly.

    You, Li, Robinson, Vidal, "Oracle Based Active Set Algorithm for Scalable Elastic Net Subspace Clustering"
    (CVPR 2016), with their relative ``γ' = γ τ / max_j |x_jᵀx|``. For MNIST the authors use ``gamma = 200``,
    ``tau = 0.9``. As theirs, each row solves small problems over a working set, and an oracle says which
    dictionary rows j are missing, those with ``|x_jᵀδ| > τ``, ``δ = γ'(x - Xᵀc)``; when none is, the solution
    is that over the whole dictionary. New here:

    - rows advance together, as tensors, those of like difficulty side by side;
    - the first working sets come from ``X (XᵀX + λI)⁻¹ r`` instead of ``X r``, λ the mean eigenvalue: images
      have much in common, and what remains of one is found better once that is damped in all;
    - small problems are solved by Newton's method on their dual, which is piecewise quadratic.

    Inner products are float32, small problems float64: a row counts as solved when no ``|x_jᵀδ|`` exceeds τ
    by more than some ``5e-7 γ'``.
    """

    Options = ElasticNetOptions

    def __init__(self, options: ElasticNetOptions, width: int) -> None:
        self.options = options
        self.unfinished = 0
        """Rows since the last :meth:`encode` that ran out of rounds: best over their working set only."""

    @property
    def warnings_(self) -> list[str]:
        if not self.unfinished:
            return []
        rounds = self.options.max_rounds
        return [
            f"elastic-net: {self.unfinished} rows are not solved to the end after {rounds} rounds; raise "
            "coefficients.max_rounds"
        ]

    def encode(self, dictionary: Tensor) -> _Encoded:
        self.unfinished = 0
        inverse, width = RidgeInverse(dictionary, mean_eigenvalue(dictionary)), dictionary.shape[1]
        packed = PackedRows(dictionary)
        rough = PackedRows(dictionary.bfloat16()) if has_bf16(dictionary.device) else packed
        if len(dictionary) <= width:
            return _Encoded(packed, rough, inverse)
        matrix = inverse(torch.eye(width, dtype=dictionary.dtype, device=dictionary.device))
        return _Encoded(packed, rough, lambda rows: rows @ matrix)

    def coefficients(self, queries: Tensor, encoded: _Encoded, top_k: int, own: Tensor) -> Coefficients:
        together = max(1, min(TOGETHER, MAX_SCORES // len(encoded.dictionary)))
        largest = queries.new_empty(len(queries))
        for part in _parts(len(queries), together):
            scores = encoded.dictionary.products(queries[part]).abs_()
            exclude_own(scores, own[part])
            largest[part] = scores.amax(dim=1)
        scale = largest.clamp_min(MIN_COSINE) / (self.options.gamma * self.options.tau)
        # With little ridge, the rounding of float32 would decide whether a small problem is convex.
        lean = (1 - self.options.tau) * float(scale.min()) < MIN_RIDGE
        dtype = precise(queries.device) if lean else queries.dtype
        found = Coefficients(
            torch.zeros(len(queries), top_k, dtype=torch.int64, device=queries.device),
            queries.new_zeros(len(queries), top_k),
        )

        def solve(place: Tensor) -> int:
            parts = place.split(together)
            states = [_start(part, queries[part], own[part], scale[part], dtype) for part in parts]
            return self._solve(states, encoded, found)

        # The nearer a row's nearest neighbour, the fewer rows it takes; work is padded to the neediest.
        groups = largest.argsort().tensor_split(-(-len(queries) // POOLED))
        self.unfinished += sum(side_by_side(solve, groups, queries.device))
        return found

    def _solve(self, states: list[_State], encoded: _Encoded, found: Coefficients) -> int:
        """Write the coefficients of these queries into ``found``; how many are unfinished."""
        dictionary, rounds, together = encoded.dictionary.rows, self.options.max_rounds, len(states[0])
        for round_ in range(rounds):
            pooled = _pooled([self._look(state, encoded, found, round_) for state in states])
            used, early = pooled.used(), round_ < min(EARLY, rounds - 1)
            far = early & (pooled.wanted == pooled.missing.shape[1])
            states = []
            for which, steps in ((far, FEW_STEPS), (~far, NEWTON_STEPS)):
                rows = which.nonzero().squeeze(1)
                for part in rows[used[rows].argsort()].split(together) if len(rows) else ():
                    grown = _grown(pooled.first(int(used[part].max())).take(part), dictionary)
                    states.append(self._improve(grown, dictionary, steps))
            if not states:
                return 0
        for state in states:
            _write(state, torch.ones_like(state.converged), found, len(dictionary))
        return sum(map(len, states))

    def _look(
        self, state: _State, encoded: _Encoded, found: Coefficients, round_: int
    ) -> tuple[_State, Tensor]:
        """Queries with what they miss, and which are left; the others are written into ``found``."""
        n, probing = len(encoded.dictionary), round_ < PROBES
        # Who is not settled cannot be done yet.
        packed = encoded.dictionary if bool(state.converged.any()) else encoded.rough
        scores = packed.products(encoded.damp(state.residual) if probing else state.residual).abs_()
        exclude_own(scores, state.own, -1)
        scores.scatter_(1, state.support, -2)
        best, missing = _largest(scores, min(self.options.support_size, n), state.support.shape[1])
        noise = rounding(state.residual) * (1 + state.values.abs().sum(dim=1, keepdim=True))
        limit = 0 if probing else self.options.tau * state.scale + noise
        wanted = (best > limit).sum(dim=1)
        done = state.converged & (wanted == 0) & (not probing)
        _write(state, done, found, n)
        return replace(state, missing=missing, useless=best < 0, wanted=wanted), ~done

    def _improve(self, state: _State, dictionary: Tensor, steps: int) -> _State:
        """Solve the small problems, or come nearer to it in few steps."""
        dtype = state.values.dtype if steps == NEWTON_STEPS else state.gram.dtype
        tau = (self.options.tau * state.scale).expand_as(state.values).masked_fill(state.barred, torch.inf)
        ridge = (1 - self.options.tau) * state.scale
        problem = (state.gram, state.inner, tau, ridge, state.values)
        size = max(1, MAX_SOLVED // state.support.shape[1] ** 2)
        parts = zip(*(tensor.to(dtype).split(size) for tensor in problem), strict=True)
        solved = [
            solve_elastic_nets(gram, inner, tau, ridge, values, steps)
            for gram, inner, tau, ridge, values in parts
        ]
        values, converged = (torch.cat(parts) for parts in zip(*solved, strict=True))
        converged &= dtype == state.values.dtype
        weights = values.to(dictionary.dtype)
        combined = F.embedding_bag(state.support, dictionary, per_sample_weights=weights, mode="sum")
        values, residual = values.to(state.values.dtype), state.query - combined
        return replace(state, values=values, converged=converged, residual=residual)


def _start(place: Tensor, query: Tensor, own: Tensor, scale: Tensor, dtype: torch.dtype) -> _State:
    """Queries with an empty working set, whose inner products will be of this dtype."""
    b, values = len(place), precise(query.device)
    return _State(
        place,
        query,
        own,
        scale.to(values).unsqueeze(1),
        support=own.new_empty(b, 0),
        barred=own.new_empty(b, 0, dtype=torch.bool),
        gram=query.new_empty(b, 0, 0, dtype=dtype),
        inner=query.new_empty(b, 0, dtype=dtype),
        values=query.new_empty(b, 0, dtype=values),
        residual=query,
        converged=own.new_zeros(b, dtype=torch.bool),
        missing=own.new_empty(b, 0),
        useless=own.new_empty(b, 0, dtype=torch.bool),
        wanted=own.new_zeros(b),
    )


def _pooled(looked: list[tuple[_State, Tensor]]) -> _State:
    """Those that are left of all, with the coefficients that are not zero first, and room for the most."""
    size = max(int(state.used().max()) for state, _ in looked)
    kept = [_kept(state, left.nonzero().squeeze(1), size) for state, left in looked]
    return _State(*(torch.cat([getattr(state, field.name) for state in kept]) for field in fields(_State)))


def _kept(state: _State, rows: Tensor, size: int) -> _State:
    """These queries at a size of the working set that has room for all coefficients that are not zero."""
    before = state.support.shape[1]
    used = min(size, before)
    # A barred row goes before the one whose place it would hide.
    kept = state.values.abs().masked_fill(state.barred, -1)[rows].topk(used, dim=1).indices
    lines = state.gram.flatten(0, 1).index_select(0, (rows.unsqueeze(1) * before + kept).flatten())
    lines = lines.view(len(rows), used, before)
    gram = state.gram.new_zeros(len(rows), size, size)
    gram[:, :used, :used] = lines.gather(2, kept.unsqueeze(1).expand(-1, used, -1))
    same = ("place", "query", "own", "scale", "residual", "converged", "missing", "useless", "wanted")
    taken, room = {name: getattr(state, name)[rows] for name in same}, (0, size - used)
    # What fills up is a row that is about to join.
    filling = taken["missing"][:, :1].expand(-1, size - used)
    return _State(
        **taken,
        support=torch.cat([state.support[rows].gather(1, kept), filling], dim=1),
        barred=F.pad(state.barred[rows].gather(1, kept), room, value=True),
        gram=gram,
        inner=F.pad(state.inner[rows].gather(1, kept), room),
        values=F.pad(state.values[rows].gather(1, kept), room),
    )


def _grown(state: _State, dictionary: Tensor) -> _State:
    """The working sets with the dictionary rows that they miss."""
    used, more = state.support.shape[1], max(1, int(state.wanted.max()))
    support = torch.cat([state.support, state.missing[:, :more]], dim=1)
    gram, inner = F.pad(state.gram, (0, more, 0, more)), F.pad(state.inner, (0, more))
    for part in _parts(len(state), max(1, MAX_GATHERED // (support.shape[1] * dictionary.shape[1]))):
        members = support[part]
        atoms = dictionary.index_select(0, members.flatten()).view(*members.shape, -1).to(gram.dtype)
        new = atoms[:, used:] @ atoms.mT
        gram[part, used:], gram[part, :used, used:] = new, new[:, :, :used].mT
        inner[part, used:] = (atoms[:, used:] @ state.query[part].to(gram.dtype).unsqueeze(2)).squeeze(2)
    return replace(
        state,
        support=support,
        barred=torch.cat([state.barred, state.useless[:, :more]], dim=1),
        gram=gram,
        inner=inner,
        values=F.pad(state.values, (0, more)),
    )


def _write(state: _State, done: Tensor, found: Coefficients, n: int) -> None:
    """The largest coefficients of those that are done, and other dictionary rows of n, to their places."""
    rows = done.nonzero().squeeze(1)
    if not len(rows):
        return
    top_k, size = found.indices.shape[1], state.support.shape[1]
    support, barred, values = state.support[rows], state.barred[rows], state.values[rows]
    others = torch.arange(min(n, size + top_k + 1), device=support.device)
    # The last column takes what is none of them.
    beyond = len(others)
    rank = values.new_full((len(rows), beyond + 1), -1)
    own = state.own[rows].unsqueeze(1)
    rank.scatter_(1, torch.where(own < 0, beyond, own.clamp_max(beyond)), -2)
    rank.scatter_(1, support.clamp_max(beyond).masked_fill(barred, beyond), -3)
    rank = torch.cat([values.abs().masked_fill(barred, -3), rank[:, :beyond]], dim=1)
    best = rank.topk(top_k, dim=1).indices
    place = state.place[rows]
    found.indices[place] = torch.cat([support, others.expand(len(rows), -1)], dim=1).gather(1, best)
    found.values[place] = F.pad(values, (0, beyond)).gather(1, best).to(found.values.dtype)


def _parts(length: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, length, size)]


def _largest(scores: Tensor, count: int, masked: int) -> tuple[Tensor, Tensor]:
    """Large scores ``(B, count)``, descending, and where; negative ones (some more than ``masked``) last."""
    size = scores.shape[1] // GROUP
    if size < 4 * (count + masked):
        best = scores.topk(count, dim=1)
        return best.values, best.indices
    # Group i is i, i + size, i + 2 size, …: its maximum is taken side by side with its neighbours'.
    grouped = scores[:, : size * GROUP].view(len(scores), GROUP, size)
    best = torch.cat([grouped.amax(dim=1), scores[:, size * GROUP :]], dim=1).topk(count, dim=1)
    group = best.indices.clamp_max(size - 1)
    within = grouped.gather(2, group.unsqueeze(1).expand(-1, GROUP, -1)).argmax(dim=1) * size + group
    return best.values, torch.where(best.indices < size, within, best.indices + size * (GROUP - 1))
