"""Elastic-net subspace clustering (EnSC): sparse coefficients by an exact active-set method, in batches."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.coefficients import exclude_own
from ebsc_core.interfaces import CoefficientModel, Coefficients
from ebsc_core.options import Options
from ebsc_core.products import PackedRows
from ebsc_core.ridge import RidgeInverse, mean_eigenvalue
from ebsc_plugins.coefficients.workers import precise, side_by_side

# Queries that advance together: many calls' worth of work, while their scores stay in the cache.
TOGETHER = 256
# Scores, inner products of all small problems, gathered rows, and inner products of the small problems that
# one Newton iteration sees: entries held at once, from what memory allows down to what a cache does.
MOST_SCORES, MOST_PRODUCTS, MOST_GATHERED, MOST_SOLVED = 1 << 24, 1 << 24, 1 << 22, 1 << 20
# The first rounds only look for candidates: nothing is checked, and a few Newton steps do.
PROBES, PROBE_STEPS = 3, 3
NEWTON_STEPS = 60
# Of plenty of groups of this many dictionary rows, one row at most of each joins per round: several times
# faster than finding the very largest scores.
GROUP = 16
# A small problem of less ridge than this is pulled towards its previous solution, ever less.
LEAST_RIDGE, PROXIMAL_ROUNDS = 1e-4, 20
# A row whose largest cosine is below this has nothing to be expressed by.
LEAST_COSINE = 1e-3
# On the diagonal of a linear system, it makes a value vanish.
BARRED = 1e30


class ElasticNetOptions(Options):
    """Options of elastic-net subspace clustering."""

    gamma: float = Field(50.0, gt=1)
    """Weight of the reconstruction error, as a multiple of the largest at which all coefficients of a row are
    still zero. The authors use 200 on MNIST."""
    tau: float = Field(0.9, gt=0, le=1)
    """Share of the absolute coefficients in the penalty; the rest goes to their squares. 1 is sparse subspace
    clustering (SSC)."""
    support_size: int = Field(20, ge=1)
    """Dictionary rows that join the working set of a row in each round: for speed, the result is the same."""
    max_rounds: int = Field(40, ge=1)
    """Rounds after which a row keeps what it has."""


@dataclass(frozen=True)
class _Encoded:
    dictionary: PackedRows
    damped: PackedRows


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
    gram: Tensor
    """``(B, s, s)``, inner products within the working set."""
    inner: Tensor
    """``(B, s)``, inner products with the query."""
    values: Tensor
    """``(B, s)``, the coefficients so far."""
    residual: Tensor
    """``(B, D)``, the query less its combination of the working set."""
    settled: Tensor
    """``(B,)``, whether the values solve the small problem."""

    def __len__(self) -> int:
        return len(self.place)

    def take(self, which: Tensor | slice) -> _State:
        return _State(*(getattr(self, field.name)[which] for field in fields(self)))

    def is_own(self) -> Tensor:
        return self.support == self.own.unsqueeze(1)


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
    default_top_k: ClassVar[int | None] = 50

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
        damped, _ = RidgeInverse(dictionary, mean_eigenvalue(dictionary)).own()
        return _Encoded(PackedRows(dictionary), PackedRows(damped))

    def coefficients(self, queries: Tensor, encoded: _Encoded, top_k: int, own: Tensor) -> Coefficients:
        together = max(1, min(TOGETHER, MOST_SCORES // len(encoded.dictionary.rows)))
        largest = queries.new_empty(len(queries))
        for part in _parts(len(queries), together):
            scores = encoded.dictionary.products(queries[part]).abs_()
            exclude_own(scores, own[part])
            largest[part] = scores.amax(dim=1)
        scale = largest.clamp_min(LEAST_COSINE) / (self.options.gamma * self.options.tau)
        found = Coefficients(
            torch.zeros(len(queries), top_k, dtype=torch.int64, device=queries.device),
            queries.new_zeros(len(queries), top_k),
        )
        # The nearer a row's nearest neighbour, the fewer rows it takes; work is padded to the neediest.
        order = largest.argsort()

        def solve(part: slice) -> int:
            place = order[part]
            return self._solve(_start(place, queries[place], own[place], scale[place]), encoded, found)

        self.unfinished += sum(side_by_side(solve, _parts(len(queries), together), queries.device))
        return found

    def _solve(self, state: _State, encoded: _Encoded, found: Coefficients) -> int:
        """Write the coefficients of these queries into ``found``; how many are unfinished."""
        states = [state]
        for round_ in range(self.options.max_rounds):
            last_probe = round_ + 1 >= min(PROBES, self.options.max_rounds)
            # From here on a row may finish, and shall have as many entries as are asked for.
            least = found.indices.shape[1] if last_probe else 0
            advanced = []
            for state in states:
                done, rest, scores = self._check(state, encoded, round_)
                _write(done, found)
                if len(rest):
                    grown = self._grow(rest, scores, encoded.dictionary.rows, least)
                    steps = NEWTON_STEPS if last_probe else PROBE_STEPS
                    most = max(1, MOST_PRODUCTS // grown.support.shape[1] ** 2)
                    for part in _parts(len(grown), most):
                        advanced.append(self._improve(grown.take(part), encoded.dictionary.rows, steps))
            states = advanced
        for state in states:
            _write(state, found)
        return sum(map(len, states))

    def _check(self, state: _State, encoded: _Encoded, round_: int) -> tuple[_State, _State, Tensor]:
        """Who is done, who is not, and how much each dictionary row would help the latter, ``(B, N)``."""
        probing = round_ < PROBES and state.support.shape[1] < len(encoded.dictionary.rows)
        scores = (encoded.damped if probing else encoded.dictionary).products(state.residual).abs_()
        # A row itself joins a working set only when nothing else is left, and takes no part in it.
        exclude_own(scores, state.own, -1)
        scores.scatter_(1, state.support, -2)
        if probing:
            return state.take(slice(0)), state, scores
        noise = _rounding(scores) * (1 + state.values.abs().sum(dim=1))
        limit = self.options.tau * state.scale.squeeze(1) + noise
        done = state.settled & (scores.amax(dim=1) <= limit)
        return state.take(done), state.take(~done), scores[~done]

    def _grow(self, state: _State, scores: Tensor, dictionary: Tensor, least: int) -> _State:
        """The working set less its zeros, plus the dictionary rows that help most."""
        before, n = state.support.shape[1], scores.shape[1]
        used = int((state.values != 0).sum(dim=1).max()) if before else 0
        wanted = max(self.options.support_size, least - used)
        more = min(wanted, n - before)
        # Where the dictionary is at its end, zeros stay too.
        used = min(before, used + wanted - more)
        kept = state.values.abs().topk(used, dim=1).indices
        support = torch.cat([state.support.gather(1, kept), _largest(scores, more, before)], dim=1)
        rows = state.gram.gather(1, kept.unsqueeze(2).expand(-1, -1, before))
        gram = F.pad(rows.gather(2, kept.unsqueeze(1).expand(-1, used, -1)), (0, more, 0, more))
        inner = F.pad(state.inner.gather(1, kept), (0, more))
        # With little ridge, the rounding of float32 would decide whether the small problem is convex.
        lean = (1 - self.options.tau) * float(state.scale.min()) < LEAST_RIDGE
        for part in _parts(len(state), max(1, MOST_GATHERED // (support.shape[1] * dictionary.shape[1]))):
            members = support[part]
            atoms = dictionary.index_select(0, members.flatten()).view(*members.shape, -1)
            if lean:
                atoms = atoms.to(gram.dtype)
            new = atoms[:, used:] @ atoms.mT
            gram[part, used:], gram[part, :used, used:] = new, new[:, :, :used].mT
            inner[part, used:] = (atoms[:, used:] @ state.query[part].to(atoms.dtype).unsqueeze(2)).squeeze(2)
        values = F.pad(state.values.gather(1, kept), (0, more))
        return replace(state, support=support, values=values, inner=inner, gram=gram)

    def _improve(self, state: _State, dictionary: Tensor, steps: int) -> _State:
        """Solve the small problems, or come nearer to it in few steps."""
        tau = (self.options.tau * state.scale).expand_as(state.values)
        tau = tau.masked_fill(state.is_own(), torch.inf)
        ridge = (1 - self.options.tau) * state.scale
        solved = [
            _elastic_net(
                state.gram[part], state.inner[part], tau[part], ridge[part], state.values[part], steps
            )
            for part in _parts(len(state), max(1, MOST_SOLVED // state.support.shape[1] ** 2))
        ]
        values, settled = (torch.cat(parts) for parts in zip(*solved, strict=True))
        weights = values.to(dictionary.dtype)
        combined = F.embedding_bag(state.support, dictionary, per_sample_weights=weights, mode="sum")
        return replace(state, values=values, settled=settled, residual=state.query - combined)


def _start(place: Tensor, query: Tensor, own: Tensor, scale: Tensor) -> _State:
    """Queries with an empty working set."""
    dtype = precise(query.device)
    none = query.new_empty(len(place), 0, dtype=dtype)
    return _State(
        place,
        query,
        own,
        scale.to(dtype).unsqueeze(1),
        support=own.new_empty(len(place), 0),
        gram=none.unsqueeze(2),
        inner=none,
        values=none,
        residual=query,
        settled=own.new_zeros(len(place), dtype=torch.bool),
    )


def _write(state: _State, found: Coefficients) -> None:
    """The largest coefficients of these queries, to their places."""
    if len(state):
        strength = state.values.abs().masked_fill(state.is_own(), -1)
        best = strength.topk(found.indices.shape[1], dim=1).indices
        found.indices[state.place] = state.support.gather(1, best)
        found.values[state.place] = state.values.gather(1, best).to(found.values.dtype)


def _parts(length: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, length, size)]


def _rounding(like: Tensor) -> float:
    """What inner products of unit-length rows are off by, generously."""
    return 2 * torch.finfo(like.dtype).eps


def _largest(scores: Tensor, count: int, masked: int) -> Tensor:
    """Positions ``(B, count)`` of large scores, negative ones (some more than ``masked`` per row) last."""
    size = scores.shape[1] // GROUP
    if size < 4 * (count + masked):
        return scores.topk(count, dim=1, sorted=False).indices
    # Group i is i, i + size, i + 2 size, …: its maximum is taken side by side with its neighbours'.
    grouped = scores[:, : size * GROUP].view(len(scores), GROUP, size)
    group = grouped.amax(dim=1).topk(count, dim=1, sorted=False).indices
    within = grouped.gather(2, group.unsqueeze(1).expand(-1, GROUP, -1)).argmax(dim=1)
    return within * size + group


def _elastic_net(
    gram: Tensor, inner: Tensor, tau: Tensor, ridge: Tensor, values: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Minimise ``Σ_j τ_j|u_j| + ρ/2 ‖u‖² + ½ uᵀGu - bᵀu`` for each row; returns u and which are solved.

    Where ρ is small or none, by proximal points (Rockafellar 1976): repeatedly, with ``κ/2 ‖u - u_before‖²``.
    """
    pull = (LEAST_RIDGE - ridge).clamp_min(0)
    if not bool((pull > 0).any()):
        return _newton(gram, inner, tau, ridge, values, steps)
    least = max(1e-9, 100 * torch.finfo(gram.dtype).eps)
    for round_ in range(PROXIMAL_ROUNDS if steps == NEWTON_STEPS else 1):
        before, pull = values, pull.clamp_max(max(least, LEAST_RIDGE * 0.1**round_))
        values, settled = _newton(gram, inner + pull * before, tau, ridge + pull, before, steps)
        settled &= (pull * (values - before)).abs().amax(dim=1) <= 1e-6 * tau.amin(dim=1)
        if bool(settled.all()):
            break
    return values, settled


def _newton(
    gram: Tensor, inner: Tensor, tau: Tensor, ridge: Tensor, values: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Semi-smooth Newton on the dual of the elastic net, with a line search.

    With ``v = b - Gu``, the dual is minimal where ``u = S_τ(v)/ρ``, S the soft threshold. A step solves this
    for the present active set, ``|v| > τ``, and its signs; the dual is convex and piecewise quadratic, so
    that finitely many suffice.
    """
    result, settled = values.clone(), torch.zeros(len(values), dtype=torch.bool, device=values.device)
    flat, rows = gram.flatten(0, 1), torch.arange(len(values), device=values.device)
    slack = inner - (values.unsqueeze(1) @ gram).squeeze(1)
    for _ in range(steps):
        solution, its_slack = _solve_active(flat, rows, inner, tau, ridge, slack)
        # Optimal: of the signs assumed where it is not zero, and within ±τ where it is.
        wrong = torch.where(solution == 0, its_slack.abs() - tau, -solution * slack.sign())
        done = wrong.amax(dim=1) <= 1e-8 * tau.amin(dim=1) + _rounding(tau)
        step = _line_search(values, solution - values, slack, its_slack - slack, tau, ridge)
        step = torch.where(done.unsqueeze(1), 1, step)
        values, slack = values.lerp(solution, step), slack.lerp(its_slack, step)
        result[rows], settled[rows] = values, done
        if bool(done.any()):
            left = (~done).nonzero().squeeze(1)
            if not len(left):
                break
            rows, values, slack, inner = rows[left], values[left], slack[left], inner[left]
            tau, ridge = tau[left], ridge[left]
    return result, settled


def _solve_active(
    flat: Tensor, rows: Tensor, inner: Tensor, tau: Tensor, ridge: Tensor, slack: Tensor
) -> tuple[Tensor, Tensor]:
    """Values ``(B, s)`` that solve the active set's equations, zero elsewhere, and their ``b - Gu``."""
    excess = slack.abs() - tau
    widest = max(1, int((excess > 0).sum(dim=1).max()))
    top = excess.topk(widest, dim=1)
    active, at = top.values > 0, top.indices
    lines = flat.index_select(0, (rows.unsqueeze(1) * slack.shape[1] + at).flatten()).view(*at.shape, -1)
    matrix = lines.gather(2, at.unsqueeze(1).expand(-1, widest, -1))
    # Rows with fewer active values are padded to the widest.
    matrix.diagonal(dim1=1, dim2=2).add_(torch.where(active, ridge, BARRED))
    target = inner.gather(1, at) - tau.gather(1, at).copysign(slack.gather(1, at))
    target = torch.where(active, target, 0).unsqueeze(2)
    found = torch.cholesky_solve(target, torch.linalg.cholesky_ex(matrix).L).squeeze(2)
    found = torch.where(active, found, 0)
    return torch.zeros_like(inner).scatter(1, at, found), inner - (found.unsqueeze(1) @ lines).squeeze(1)


def _line_search(
    values: Tensor, change: Tensor, slack: Tensor, slack_change: Tensor, tau: Tensor, ridge: Tensor
) -> Tensor:
    """How far to go down the dual, ``(B, 1)``, at most 1: to where it is flat, by bracketed secants."""

    def slope(step: Tensor) -> Tensor:
        at = torch.addcmul(slack, slack_change, step)
        target = (at - at.clamp(-tau, tau)) / ridge
        return ((target - torch.addcmul(values, change, step)) * slack_change).sum(dim=1, keepdim=True)

    low, high = torch.zeros_like(ridge), torch.ones_like(ridge)
    high_slope = slope(high)
    full = high_slope <= 0
    if bool(full.all()):
        return high
    low_slope = slope(low)
    for _ in range(4):
        width = high - low
        middle = low - low_slope * width / (high_slope - low_slope)
        middle = middle.clamp(low + 0.1 * width, high - 0.1 * width)
        found = slope(middle)
        below = found <= 0
        low, low_slope = torch.where(below, middle, low), torch.where(below, found, low_slope)
        high, high_slope = torch.where(below, high, middle), torch.where(below, high_slope, found)
    return torch.where(full, 1, torch.where(low > 0, low, high))
