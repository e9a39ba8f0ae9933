"""Refine a trainable coefficient model on cached features."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ebsc_core.config.schema import RefineOptions
from ebsc_core.plugins.expression import expression_of, loss_of
from ebsc_core.plugins.interfaces import TrainableCoefficientModel
from ebsc_core.plugins.kinds import Kind
from ebsc_core.plugins.refusal import refuse
from ebsc_core.utils.errors import TrainingError
from ebsc_core.utils.matmul import training_precision
from ebsc_core.utils.progress import Progress

REPORT_EVERY = 25
# Up to this many rows, a step takes the first entries of a permutation of all rows. For millions of rows
# the permutation would take longer than the step.
PERMUTED = 1 << 17


def refine(
    model: TrainableCoefficientModel,
    rows: Tensor,
    options: RefineOptions,
    seed: int,
    progress: Progress,
) -> None:
    """Train ``model`` in place on unit-length ``rows`` ``(N, D)``, on their device.

    Each step draws ``options.rows`` rows at random as the dictionary. The model expresses the first
    ``options.queries`` of them; no row uses its own entry.

    Raises
    ------
    TrainingError
        If the loss is no longer finite.
    ComponentError
        If the model returns something else than its interface says, or its first loss is not finite.
    """
    drawn = min(options.rows, len(rows))
    own = torch.arange(min(options.queries or drawn, drawn), device=rows.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(options.steps, 1))
    progress.start("refine coefficients", options.steps, "steps")
    with training_precision(rows.device):
        for step, chosen in zip(range(1, options.steps + 1), draws(len(rows), drawn, seed), strict=False):
            batch = rows[chosen.to(rows.device)]
            queries = batch[: len(own)]
            loss = loss_of(model, queries, expression_of(model, queries, batch, own))
            if step == 1 and not torch.isfinite(loss):  # no rate of learning is to blame
                refuse(model, Kind.COEFFICIENTS, "its loss is not finite before it has trained")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if options.clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip)
            optimizer.step()
            schedule.step()
            if step % REPORT_EVERY == 0 or step == options.steps:
                value = loss.item()
                if not torch.isfinite(loss):
                    raise TrainingError(f"refinement diverged at step {step} (loss {value}); lower refine.lr")
                progress.advance(step, {"loss": value})
    progress.finish()


def draws(n: int, size: int, seed: int) -> Iterator[Tensor]:
    """Yield ``size`` random positions out of ``n``, without end; no position occurs twice in one draw."""
    if n <= PERMUTED:
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield torch.randperm(n, generator=generator)[:size]
    numbers = np.random.default_rng(seed)
    while True:
        yield torch.from_numpy(numbers.choice(n, size, replace=False))
