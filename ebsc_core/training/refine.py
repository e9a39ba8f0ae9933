"""Refinement of a trainable coefficient model on cached features."""

from __future__ import annotations

import torch
from torch import Tensor

from ebsc_core.config import RefineOptions
from ebsc_core.errors import TrainingError
from ebsc_core.interfaces import TrainableCoefficientModel
from ebsc_core.progress import Progress

REPORT_EVERY = 25


def refine(
    model: TrainableCoefficientModel,
    rows: Tensor,
    options: RefineOptions,
    seed: int,
    progress: Progress,
) -> None:
    """Train ``model`` in place on unit-length ``rows`` ``(N, D)``, on their device.

    Each step draws ``options.rows`` rows at random as the dictionary; the first ``options.queries`` of them
    are expressed, each without its own entry.

    Raises
    ------
    TrainingError
        If the loss stops being finite.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = min(options.rows, len(rows))
    own = torch.arange(min(options.queries or drawn, drawn), device=rows.device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(options.steps, 1))
    progress.start("refine coefficients", options.steps, "steps")
    for step in range(1, options.steps + 1):
        chosen = torch.randperm(len(rows), generator=generator)[:drawn].to(rows.device)
        batch = rows[chosen]
        queries = batch[: len(own)]
        loss = model.loss(queries, model.express(queries, batch, own))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if options.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip)
        optimiser.step()
        schedule.step()
        if step % REPORT_EVERY == 0 or step == options.steps:
            value = loss.item()
            if not torch.isfinite(loss):
                raise TrainingError(f"refinement diverged at step {step} (loss {value}); lower refine.lr")
            progress.advance(step, {"loss": value})
    progress.finish()
