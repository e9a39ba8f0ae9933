"""Search with the library faiss, which provides an inverted file of the same shape as our own cells."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor

from ebsc_core.clustering.search.centroids import MAX_MET
from ebsc_core.clustering.search.exact import exhaustive, packed_tiles
from ebsc_core.clustering.search.index import Found, Index


class FaissIndex(Index):
    """Hold keys ``(N, D)`` in an ``IVF,Flat`` index on the CPU; a graph (HNSW) searches many centroids."""

    method = "faiss"

    def __init__(self, keys: Tensor, cells: int, probes: int, seed: int) -> None:
        faiss = import_module("faiss")  # no import statement: the types differ between versions
        self.keys = keys
        faiss.omp_set_num_threads(torch.get_num_threads())
        quantizer = "_HNSW32" if cells > MAX_MET else ""
        self.index = faiss.index_factory(
            keys.shape[1], f"IVF{cells}{quantizer},Flat", faiss.METRIC_INNER_PRODUCT
        )
        self.index.cp.seed = seed % 2**31
        self.index.cp.min_points_per_centroid = 1  # otherwise faiss prints to the terminal
        self.index.nprobe = self.probes = min(probes, cells)
        rows = keys.float().cpu().numpy()
        self.index.train(rows)
        self.index.add(rows)

    def __len__(self) -> int:
        return len(self.keys)

    @torch.no_grad()
    def search(self, queries: Tensor, top_k: int, own: Tensor, normalize: bool = False) -> Found:
        # Search for one more key, because the query's own key may be among them.
        values, positions = self.index.search(queries.float().cpu().numpy(), min(top_k + 1, len(self)))
        candidates = torch.from_numpy(positions).to(own)
        scores = torch.from_numpy(values).to(queries)
        scores.masked_fill_((candidates < 0) | (candidates == own.unsqueeze(1)), -torch.inf)
        scores = torch.nn.functional.pad(scores, (0, max(0, top_k - scores.shape[1])), value=-torch.inf)
        candidates = torch.nn.functional.pad(candidates, (0, scores.shape[1] - candidates.shape[1]))
        scores, best = scores.topk(top_k, dim=1)
        indices = candidates.gather(1, best).masked_fill(scores == -torch.inf, 0)
        normalizer = scores.logsumexp(dim=1, keepdim=True) if normalize else torch.zeros_like(scores[:, :1])
        return Found(scores, indices, normalizer)

    def exhaustive(self, queries: Tensor, top_k: int, own: Tensor) -> Found:
        return exhaustive(queries, packed_tiles(self.keys), top_k, own)
