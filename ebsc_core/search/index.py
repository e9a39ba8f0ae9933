"""What an index over a dictionary's keys does, and what it finds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

# The k largest of many columns lie in the k groups of largest maximum: only those are sorted.
GROUP = 16


@dataclass(frozen=True)
class Found:
    """The largest inner products of ``B`` queries with the keys of an index."""

    scores: Tensor
    """``(B, k)`` descending; ``-inf`` where fewer keys than k were looked at."""
    indices: Tensor
    """``(B, k)`` int64, positions of the keys; 0 where the score is ``-inf``."""
    normaliser: Tensor
    """``(B, 1)``, log-sum-exp over all keys, or those found if not all were looked at; 0 unless asked."""


class Index(ABC):
    """Keys ``(N, D)`` laid out to be searched by any number of queries, in blocks of any size."""

    order: Tensor | None = None
    """``(N,)`` int64, the keys' positions such that near ones are side by side, if they were laid out so."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def search(self, queries: Tensor, top_k: int, own: Tensor, normalise: bool = False) -> Found:
        """The ``top_k`` keys of largest inner product with each of the queries ``(B, D)``.

        ``own`` ``(B,)`` is each query's own position among the keys, which is never found, or -1. Neither the
        other queries nor how many there are change what is found.
        """


def largest(scores: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Values and columns of ``scores.topk(top_k)``, ``(B, k)``, in less time where there are many columns.

    Fewer where there are fewer columns than ``top_k``.
    """
    groups = scores.shape[1] // GROUP
    if groups < 4 * top_k:
        top = scores.topk(min(top_k, scores.shape[1]), dim=1)
        return top.values, top.indices
    # Group g holds columns g, g + groups, …: maxima over whole rows are quick, within a row they are not.
    grouped = scores[:, : GROUP * groups].unflatten(1, (GROUP, groups))
    chosen = grouped.amax(dim=1).topk(top_k, dim=1).indices
    columns = torch.arange(GROUP, device=scores.device).view(1, -1, 1) * groups + chosen.unsqueeze(1)
    rest = torch.arange(GROUP * groups, scores.shape[1], device=scores.device).expand(len(scores), -1)
    candidates = torch.cat([columns.flatten(1), rest], dim=1)
    values, best = scores.gather(1, candidates).topk(top_k, dim=1)
    return values, candidates.gather(1, best)


def found_of(scores: Tensor, indices: Tensor, top_k: int, normaliser: Tensor) -> Found:
    """What was found, padded to ``top_k`` columns."""
    missing = top_k - scores.shape[1]
    if missing:
        scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf)
        indices = torch.nn.functional.pad(indices, (0, missing))
    return Found(scores, indices.masked_fill(scores == -torch.inf, 0), normaliser)
