"""Solve many small elastic-net problems at once, by Newton's method on their dual."""

from __future__ import annotations

import torch
from torch import Tensor

NEWTON_STEPS = 60
# A problem of less ridge than this is pulled towards its previous solution, ever less.
MIN_RIDGE, PROXIMAL_ROUNDS = 1e-4, 20
# On the diagonal of a linear system, it makes a value vanish.
BARRED = 1e30


def rounding(like: Tensor) -> float:
    """Return a generous bound for the rounding error of inner products of unit-length rows."""
    return 2 * torch.finfo(like.dtype).eps


def solve_elastic_nets(
    gram: Tensor, inner: Tensor, tau: Tensor, ridge: Tensor, values: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Minimise ``Σ_j τ_j|u_j| + ρ/2 ‖u‖² + ½ uᵀGu - bᵀu`` for each row.

    If ρ is small or 0, the function uses proximal points (Rockafellar 1976): it solves the problem
    repeatedly with the additional term ``κ/2 ‖u - u_before‖²``.

    Parameters
    ----------
    gram : Tensor of shape (B, s, s)
        The matrix G of each problem.
    inner : Tensor of shape (B, s)
        The vector b of each problem.
    tau : Tensor of shape (B, s)
        The weights τ; an infinite weight makes a value zero.
    ridge : Tensor of shape (B, 1)
        The ridge ρ of each problem.
    values : Tensor of shape (B, s)
        The starting point.
    steps : int
        The maximum number of Newton steps. With fewer than ``NEWTON_STEPS``, there is only one proximal
        point.

    Returns
    -------
    values : Tensor of shape (B, s)
        The solutions u.
    settled : Tensor of shape (B,)
        A mask of the problems that are solved.
    """
    pull = (MIN_RIDGE - ridge).clamp_min(0)
    if not bool((pull > 0).any()):
        return _newton(gram, inner, tau, ridge, values, steps)
    least = max(1e-9, 100 * torch.finfo(gram.dtype).eps)
    for round_ in range(PROXIMAL_ROUNDS if steps == NEWTON_STEPS else 1):
        before, pull = values, pull.clamp_max(max(least, MIN_RIDGE * 0.1**round_))
        values, converged = _newton(gram, inner + pull * before, tau, ridge + pull, before, steps)
        converged &= (pull * (values - before)).abs().amax(dim=1) <= 1e-6 * tau.amin(dim=1)
        if bool(converged.all()):
            break
    return values, converged


def _newton(
    gram: Tensor, inner: Tensor, tau: Tensor, ridge: Tensor, values: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Apply a semi-smooth Newton method with a line search to the dual of the elastic net.

    With ``v = b - Gu``, the dual is minimal where ``u = S_τ(v)/ρ``, S the soft threshold. A step solves
    this equation for the current active set ``|v| > τ`` and its signs. The dual is convex and piecewise
    quadratic, so that finitely many steps are enough.
    """
    result, converged = values.clone(), torch.zeros(len(values), dtype=torch.bool, device=values.device)
    flat, rows = gram.flatten(0, 1), torch.arange(len(values), device=values.device)
    slack = inner - (values.unsqueeze(1) @ gram).squeeze(1)
    for _ in range(steps):
        solution, its_slack = _solve_active(flat, rows, inner, tau, ridge, slack)
        # Optimal: of the signs assumed where it is not zero, and within ±τ where it is.
        wrong = torch.where(solution == 0, its_slack.abs() - tau, -solution * slack.sign())
        done = wrong.amax(dim=1) <= 1e-8 * tau.amin(dim=1) + rounding(tau)
        step = _line_search(values, solution - values, slack, its_slack - slack, tau, ridge)
        step = torch.where(done.unsqueeze(1), 1, step)
        values, slack = values.lerp(solution, step), slack.lerp(its_slack, step)
        result[rows], converged[rows] = values, done
        if bool(done.any()):
            left = (~done).nonzero().squeeze(1)
            if not len(left):
                break
            rows, values, slack, inner = rows[left], values[left], slack[left], inner[left]
            tau, ridge = tau[left], ridge[left]
    return result, converged


def _solve_active(
    flat: Tensor, rows: Tensor, inner: Tensor, tau: Tensor, ridge: Tensor, slack: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve the active set's equations; return values ``(B, s)``, zero elsewhere, and their ``b - Gu``."""
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
    """Find the step ``(B, 1)``, at most 1, at which the dual is flat, by bracketed secants."""

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
