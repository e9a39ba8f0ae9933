"""Define what an index over a dictionary's keys does and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor

# The k largest of many columns lie in the k groups of largest maximum: only those are sorted.
GROUP = 16
# Scores held at once: 2^22 float32 are 16 MiB. With 128 MiB, products took 2.5 times as long on an AMD
# processor (the memory, not the arithmetic); a GPU wants more at once.
TILE_SCORES = {"cpu": 1 << 22, "cuda": 1 << 27}


@dataclass(frozen=True)
class Found:
    """Hold the largest inner products of ``B`` queries with the keys of an index."""

    scores: Tensor
    """``(B, k)``, descending; ``-inf`` if fewer than k keys were examined."""
    indices: Tensor
    """``(B, k)`` int64, positions of the keys; 0 if the score is ``-inf``."""
    normalizer: Tensor
    """``(B, 1)``, the log-sum-exp over all keys, or over the keys found by an approximate search; 0 if it
    was not requested."""


class Index(ABC):
    """Prepare keys ``(N, D)`` to be searched by any number of queries, in blocks of any size."""

    method: str
    """``exact``, ``cells`` or ``faiss``."""
    probes: int = 0
    """The number of cells that are searched for each query; 0 if all keys are."""
    order: Tensor | None = None
    """The keys' positions, ``(N,)`` int64, sorted so that near keys are side by side; None if not
    sorted."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def search(self, queries: Tensor, top_k: int, own: Tensor, normalize: bool = False) -> Found:
        """Find the ``top_k`` keys with the largest inner product with each of the queries ``(B, D)``.

        ``own`` ``(B,)`` is each query's own position among the keys, or -1. The search never returns it.
        The result for a query does not depend on the other queries or on their number.
        """

    @abstractmethod
    def exhaustive(self, queries: Tensor, top_k: int, own: Tensor) -> Found:
        """Compare a few queries with every key; positions may be internal to the index."""

    def visits(self, own: Tensor) -> Tensor:
        """Return the order ``(B,)`` in which queries are best searched: near queries together, if known."""
        return torch.arange(len(own), device=own.device)


def recall(index: Index, queries: Tensor, top_k: int, own: Tensor) -> float:
    """Compute the share of the true ``top_k`` keys that the index finds; an equally good key counts."""
    found = index.search(queries, top_k, own).scores
    best = index.exhaustive(queries, top_k, own).scores
    there = best > -torch.inf
    least = best.masked_fill(~there, torch.inf).amin(dim=1, keepdim=True)
    rounding = 1e-5 * best.masked_fill(~there, 0).abs().amax()
    return float(((found >= least - rounding) & there).sum() / there.sum())


def largest(scores: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Compute values and columns of ``scores.topk(top_k)``, ``(B, k)``, in half the time or less.

    If there are fewer columns than ``top_k``, return all of them.
    """
    width = scores.shape[1]
    size = min(GROUP, isqrt(width // top_k))
    if size < 3:
        top = scores.topk(min(top_k, width), dim=1)
        return top.values, top.indices
    # Group g holds columns g, g + groups, …: maxima over whole rows are quick, within a row they are not.
    groups = width // size
    grouped = scores[:, : size * groups].unflatten(1, (size, groups))
    _, chosen = largest(grouped.amax(dim=1), top_k)
    columns = torch.arange(size, device=scores.device).view(1, -1, 1) * groups + chosen.unsqueeze(1)
    rest = torch.arange(size * groups, width, device=scores.device).expand(len(scores), -1)
    candidates = torch.cat([columns.flatten(1), rest], dim=1)
    values, best = scores.gather(1, candidates).topk(top_k, dim=1)
    return values, candidates.gather(1, best)


def tile_scores(device: torch.device) -> int:
    """Return how many scores to hold at once on a device."""
    return TILE_SCORES.get(device.type, 1 << 25)
